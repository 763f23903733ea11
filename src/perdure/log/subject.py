"""Names of subjects and runs: computed, never listed."""

from __future__ import annotations

import re
from base64 import b32encode
from hashlib import blake2b

from perdure.errors import Invalid
from perdure.types import RunId, SubjectId

_RUN = re.compile(r"([a-z2-7]{26})-([1-9][0-9]{0,9})")


def subject_id(namespace: str, partition: str, name: str, key: str) -> SubjectId:
    """The subject of (namespace, partition, agent or pipeline, session or run key): 26 characters of `a-z2-7`.

    Each part goes into the hash with its length, so ("ab", "c") and ("a", "bc") differ.

    Raises: Invalid (code `subject_malformed`) when a part is not valid Unicode text.
    """
    hashed = blake2b(digest_size=16)
    for part in (namespace, partition, name, key):
        try:
            data = part.encode()
        except UnicodeEncodeError as error:
            raise Invalid("subject_malformed", f"{part!r} is not valid Unicode text; send a proper key") from error
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return SubjectId(b32encode(hashed.digest()).decode().rstrip("=").lower())


def run_id(subject: SubjectId, n: int) -> RunId:
    """The run that commit `n` of `subject` accepted."""
    return RunId(f"{subject}-{n}")


def parse_run_id(text: str) -> tuple[SubjectId, int]:
    """The subject and the number of the accepting commit.

    Raises: Invalid (code `run_id_malformed`).
    """
    match = _RUN.fullmatch(text)
    if match is None:
        raise Invalid(
            "run_id_malformed",
            f"{text[:80]!r} is not a run id; send it as given when the run was accepted: `<26 characters>-<number>`",
        )
    return SubjectId(match[1]), int(match[2])
