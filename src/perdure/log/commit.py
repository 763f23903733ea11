"""A commit: one state key, a list of events, and how it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from perdure.errors import Broken, Invalid
from perdure.types import JsonObject

VERSION = 1


@dataclass(frozen=True, slots=True)
class Stamp:
    """What identifies one append. `n` counts from 1, `prev` is the id of commit `n - 1` ("" for the first)."""

    id: str
    prev: str
    n: int
    epoch: int
    driver: str
    at: str
    """When it was appended, RFC 3339 text; for people, never to order anything."""


@dataclass(frozen=True, slots=True)
class Commit(Stamp):
    """What one append added, as it is read."""

    events: tuple[JsonObject, ...]
    v: int = VERSION


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Where events too large for a commit are kept."""

    digest: str
    size: int
    parts: int


@dataclass(frozen=True, slots=True)
class Envelope:
    """A commit as stored: its events, or where they are kept."""

    id: str
    prev: str
    n: int
    epoch: int
    driver: str
    at: str
    events: tuple[JsonObject, ...] | None
    blob: BlobRef | None

    def commit(self, events: tuple[JsonObject, ...]) -> Commit:
        return Commit(self.id, self.prev, self.n, self.epoch, self.driver, self.at, events)


def encode(id: str, prev: str, n: int, epoch: int, driver: str, at: str, content: Sequence[object] | BlobRef) -> bytes:
    """One line of JSON. Events may be anything orjson writes as JSON objects: dicts, dataclasses.

    Raises: Invalid (code `event_unwritable`).
    """
    document: dict[str, object] = {"v": VERSION, "i": id, "p": prev, "n": n, "e": epoch, "d": driver, "at": at}
    document["b" if isinstance(content, BlobRef) else "ev"] = content
    return _dumps(document)


def encode_events(events: Sequence[object]) -> bytes:
    """The events alone, as kept in a blob."""
    return _dumps(events)


def decode_events(data: bytes) -> tuple[JsonObject, ...]:
    """What `encode_events` wrote."""
    return tuple(orjson.loads(data))


def decode(data: bytes, subject: str) -> Envelope:
    """What `encode` wrote.

    Raises: Broken (code `commit_version`) for a version this program does not know, Broken (code
    `commit_unreadable`) for anything else.
    """
    try:
        document: dict[str, Any] = orjson.loads(data)
        version = document["v"]
        if version == VERSION:
            events, blob = document.get("ev"), document.get("b")
            return Envelope(
                document["i"],
                document["p"],
                document["n"],
                document["e"],
                document["d"],
                document["at"],
                None if events is None else tuple(events),
                None if blob is None else BlobRef(**blob),
            )
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(
            "commit_unreadable",
            f"the log of subject {subject} holds something that is not a commit; call a maintainer",
            subject=subject,
            found=data[:200].decode(errors="replace"),
        ) from error
    raise Broken(
        "commit_version",
        f"the log of subject {subject} has a commit of version {version!r}, this program knows {VERSION}; update it",
        subject=subject,
        version=version,
    )


def _dumps(value: object) -> bytes:
    try:
        # orjson hands out its work buffer, several times as large as the text (8 KiB for 1): commits are
        # kept until their segment closes, so they are copied to their size.
        return bytes(memoryview(orjson.dumps(value)))
    except orjson.JSONEncodeError as error:
        raise Invalid("event_unwritable", f"an event cannot be written as JSON: {error}; correct the event") from error
