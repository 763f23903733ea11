"""Events too large for a commit, kept under their subject in parts."""

from __future__ import annotations

from hashlib import sha256

from perdure.errors import Broken
from perdure.log.commit import BlobRef
from perdure.log.keys import Keys
from perdure.log.limits import REPLY_BYTES, LogLimits
from perdure.sidecar.ports import StateStore


class Blobs:
    """Writes before the commit that refers to it, reads when that commit is read."""

    def __init__(self, store: StateStore, keys: Keys, limits: LogLimits) -> None:
        self._store = store
        self._keys = keys
        self._part = limits.blob_part_bytes
        self._page = max(1, REPLY_BYTES // limits.blob_part_bytes)

    def refer(self, commit: str, data: bytes) -> BlobRef:
        """Where `write` will keep `data`; no I/O."""
        return BlobRef(_digest(commit, data), len(data), max(1, -(-len(data) // self._part)))

    async def write(self, ref: BlobRef, data: bytes) -> None:
        """Return when all parts are durable."""
        for index, key in enumerate(self._keys.blob(ref.digest, ref.parts)):
            await self._store.create(key, data[index * self._part : (index + 1) * self._part])

    async def read(self, commit: str, ref: BlobRef) -> bytes:
        """The data. Raises: Broken (code `blob_missing`) when a part is gone or altered."""
        keys = self._keys.blob(ref.digest, ref.parts)
        parts: list[bytes] = []
        for start in range(0, len(keys), self._page):
            wanted = keys[start : start + self._page]
            found = await self._store.get_many(wanted)
            parts += [found[key].value for key in wanted if key in found]
        data = b"".join(parts)
        if len(parts) != ref.parts or _digest(commit, data) != ref.digest:
            subject = self._keys.subject
            raise Broken(
                "blob_missing",
                f"commit {commit} of subject {subject} refers to a blob that is gone or altered; call a maintainer",
                subject=subject,
                commit=commit,
                digest=ref.digest,
            )
        return data

    async def delete(self, ref: BlobRef) -> None:
        """Remove all parts; absent ones are fine."""
        for key in self._keys.blob(ref.digest, ref.parts):
            await self._store.delete(key)


def _digest(commit: str, data: bytes) -> str:
    # The commit's id goes in, so no two commits share a blob and the one of a commit that lost its
    # place can be removed without asking who else refers to it.
    hashed = sha256(commit.encode())
    hashed.update(data)
    return hashed.hexdigest()
