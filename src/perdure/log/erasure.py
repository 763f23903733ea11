"""Takes content away and leaves marks, so that a writer who does not know yet still meets a conflict."""

from __future__ import annotations

from perdure.errors import Conflict
from perdure.log.blobs import Blobs
from perdure.log.commit import decode
from perdure.log.head import Heads
from perdure.log.keys import MARK, Keys
from perdure.log.limits import LogLimits
from perdure.log.segments import Segments
from perdure.sidecar.ports import StateStore


class Erasure:
    """Erases one subject for ever. Every step may be cut and done again."""

    def __init__(
        self, store: StateStore, keys: Keys, heads: Heads, segments: Segments, blobs: Blobs, limits: LogLimits
    ) -> None:
        self._store = store
        self._keys = keys
        self._heads = heads
        self._segments = segments
        self._blobs = blobs
        self._limits = limits

    async def run(self) -> None:
        """Return when head, segments, blobs and commits say nothing any more."""
        if (await self._heads.erase(gone=False)).gone:
            return
        await self._erase_segments()
        await self._erase_commits()
        await self._heads.erase(gone=True)

    async def _erase_segments(self) -> None:
        # Last to first, behind a mark where the next one would start: whoever meets a mark while
        # walking from the start knows that nothing comes after it, however often this is cut.
        firsts: list[int] = []
        first = 1
        while True:
            segment = await self._segments.read(first)
            if segment is not None:
                firsts.append(first)
                first = segment.last + 1
            elif await self._mark_end(self._keys.segment(first)):
                break
        for first in reversed(firsts):
            segment = await self._segments.read(first)
            for commit in segment.commits if segment is not None else ():
                await self._delete_blob(commit)
            await self._store.put(self._keys.segment(first), MARK)

    async def _erase_commits(self) -> None:
        n = 1
        while True:
            page = [self._keys.commit(number) for number in range(n, n + self._limits.largest_page)]
            found = await self._store.get_many(page)
            for index, key in enumerate(page):
                item = found.get(key)
                if item is None and not any(later in found for later in page[index + 1 :]):
                    if await self._mark_end(key):
                        return
                    break
                if item is not None and item.value != MARK:
                    await self._delete_blob(item.value)
                if item is None or item.value != MARK:
                    await self._store.put(key, MARK)
                n += 1

    async def _mark_end(self, key: str) -> bool:
        """Whether a mark is there now; otherwise somebody wrote content in the meantime."""
        try:
            await self._store.create(key, MARK)
        except Conflict:
            return False
        return True

    async def _delete_blob(self, commit: bytes) -> None:
        blob = decode(commit, self._keys.subject).blob
        if blob is not None:
            await self._blobs.delete(blob)
