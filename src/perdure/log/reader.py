"""Reads commits in order, wherever they are kept: at their own keys or, once retired, in segments."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from perdure.errors import Broken
from perdure.log.blobs import Blobs
from perdure.log.commit import BlobRef, Commit, decode, decode_events
from perdure.log.head import Heads
from perdure.log.keys import MARK, Keys
from perdure.log.limits import LogLimits
from perdure.log.segments import Segments
from perdure.sidecar.ports import Item, StateStore


class Reader:
    """One subject's commits. Keeps no position."""

    def __init__(
        self, store: StateStore, keys: Keys, heads: Heads, segments: Segments, blobs: Blobs, limits: LogLimits
    ) -> None:
        self._store = store
        self._keys = keys
        self._heads = heads
        self._segments = segments
        self._blobs = blobs
        self._limits = limits

    async def forward(self, n: int, *, closed: int = 0) -> AsyncGenerator[tuple[int, bytes], None]:
        """Number and bytes of each commit from `n` to the end. `closed`: numbers up to here lie in segments.

        Raises: NotFound (code `subject_erased`), Broken (code `log_gap`).
        """
        while n <= closed and (segment := await self._segments.covering(n)) is not None:
            for commit in segment.since(n):
                yield n, commit
                n += 1
        page = min(self._limits.first_page_commits, self._limits.largest_page)
        while True:
            numbers = range(n, n + page)
            found = await self._store.get_many([self._keys.commit(number) for number in numbers])
            for number in numbers:
                if number != n:
                    continue
                value = await self._at(n, numbers, found)
                if value is None:
                    return
                commits = (value,) if value != MARK else await self._retired(n)
                for commit in commits:
                    yield n, commit
                    n += 1
            page = min(page * 2, self._limits.largest_page)

    async def _at(self, n: int, page: range, found: Mapping[str, Item]) -> bytes | None:
        item = found.get(self._keys.commit(n))
        if item is None and any(self._keys.commit(later) in found for later in range(n + 1, page.stop)):
            # A bulk read is not one moment: commit n may have come after it was looked for.
            item = await self._store.get(self._keys.commit(n))
            if item is None:
                raise self.gap(n, "is missing")
        return None if item is None else item.value

    async def _retired(self, n: int) -> tuple[bytes, ...]:
        segment = await self._segments.covering(n)
        if segment is None:
            raise self.gap(n, "is a mark that no segment covers")
        return segment.since(n)

    async def open(self, n: int, prev: str | None, data: bytes) -> Commit:
        """The commit in `data`, which must be number `n` and follow `prev` (None: not known), blobs resolved.

        Raises: Broken (codes `log_gap`, `blob_missing`, `commit_version`), NotFound (code `subject_erased`).
        """
        envelope = decode(data, self._keys.subject)
        if envelope.n != n or (prev is not None and envelope.prev != prev):
            raise self.gap(n, f"follows {envelope.prev or 'nothing'} instead of {prev or 'nothing'}")
        events = envelope.events
        if envelope.blob is not None:
            events = decode_events(await self._blob(envelope.id, envelope.blob))
        return envelope.commit(events or ())

    async def _blob(self, commit: str, ref: BlobRef) -> bytes:
        try:
            return await self._blobs.read(commit, ref)
        except Broken:
            # While a subject is being erased, its blobs go before its commits.
            self._heads.living(await self._store.get(self._keys.head))
            raise

    def gap(self, n: int, what: str) -> Broken:
        """The error for a log whose commit `n` is not what must be there."""
        subject = self._keys.subject
        return Broken(
            "log_gap",
            f"commit {n} of subject {subject} {what}; the store lost or mixed up writes, call a maintainer",
            subject=subject,
            n=n,
        )
