"""Segments: runs of commits written once more, together and compressed, maybe with a snapshot of their fold."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import orjson

from perdure.errors import Broken, Conflict
from perdure.log.head import Heads
from perdure.log.keys import MARK, Keys
from perdure.log.limits import LogLimits
from perdure.sidecar.ports import StateStore

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fold of all commits up to and including `n`, of the fold's `version`."""

    n: int
    version: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """Commits `first` to `last` as they were stored."""

    first: int
    last: int
    commits: tuple[bytes, ...]
    snapshot: Snapshot | None = None

    def since(self, n: int) -> tuple[bytes, ...]:
        """The commits from `n` on."""
        return self.commits[max(0, n - self.first) :]


class Segments:
    """Reads and creates one subject's segments. Each starts where the one before ended."""

    def __init__(self, store: StateStore, keys: Keys, heads: Heads, limits: LogLimits) -> None:
        self._store = store
        self._keys = keys
        self._heads = heads
        self._limits = limits

    async def read(self, first: int) -> Segment | None:
        """The segment that starts at `first`; None when there is none, or only a mark."""
        item = await self._store.get(self._keys.segment(first))
        return None if item is None else self._decode(first, item.value)

    async def covering(self, n: int) -> Segment | None:
        """The segment with commit `n`. Raises: NotFound (code `subject_erased`)."""
        keys = [self._keys.head, self._keys.segment(n)]
        stop = n
        while True:
            found = await self._store.get_many(keys)
            self._heads.living(found.get(self._keys.head))
            for first in range(n, stop - 1, -1):
                item = found.get(self._keys.segment(first))
                if item is not None:
                    segment = self._decode(first, item.value)
                    return segment if segment is not None and segment.last >= n else None
            if stop <= 1:
                return None
            start, stop = stop, max(1, stop - self._limits.segment_probe)
            keys = [self._keys.head, *(self._keys.segment(first) for first in range(stop, start))]

    async def create(self, segment: Segment) -> int:
        """Keep `segment` unless another one starts there already; the number of the last commit of the one that is.

        Raises: NotFound (code `subject_erased`).
        """
        key = self._keys.segment(segment.first)
        try:
            await self._store.create(key, self._encode(segment))
        except Conflict:
            kept = await self.read(segment.first)
            if kept is None:
                self._heads.living(await self._store.get(self._keys.head))
                raise self._unreadable(segment.first) from None
            return kept.last
        return segment.last

    def _encode(self, segment: Segment) -> bytes:
        said = b"\n".join(segment.commits)
        commits = zstd.compress(said)
        header: dict[str, object] = {"v": 1, "last": segment.last, "size": len(commits)}
        snapshot = b""
        if segment.snapshot is not None:
            snapshot = zstd.compress(segment.snapshot.data, zstd_dict=_known(said))
            if len(snapshot) <= self._limits.snapshot_bytes:
                header["snapshot"] = {"n": segment.snapshot.n, "version": segment.snapshot.version}
            else:
                snapshot = b""
        return b"".join((orjson.dumps(header), b"\n", commits, snapshot))

    def _decode(self, first: int, value: bytes) -> Segment | None:
        if value == MARK:
            return None
        head, _, body = value.partition(b"\n")
        try:
            header: dict[str, Any] = orjson.loads(head)
            last, size, about = header["last"], header["size"], header.get("snapshot")
            said = zstd.decompress(body[:size])
            commits = tuple(said.split(b"\n"))
            snapshot = None
            if about is not None:
                folded = zstd.decompress(body[size:], zstd_dict=_known(said))
                snapshot = Snapshot(about["n"], about["version"], folded)
        except (ValueError, KeyError, TypeError, zstd.ZstdError) as error:
            raise self._unreadable(first) from error
        if header["v"] != 1 or len(commits) != last - first + 1:
            raise self._unreadable(first)
        return Segment(first, last, commits, snapshot)

    def _unreadable(self, first: int) -> Broken:
        subject = self._keys.subject
        return Broken(
            "segment_unreadable",
            f"segment {first} of subject {subject} cannot be read; call a maintainer",
            subject=subject,
            first=first,
        )


def _known(commits: bytes) -> zstd.ZstdDict:
    """A snapshot mostly repeats what the commits beside it say, so it is compressed as their continuation."""
    return zstd.ZstdDict(commits, is_raw=True)


class Open:
    """What came after the last closed segment: counted, and kept as bytes so that closing reads nothing again."""

    def __init__(self, limits: LogLimits, first: int = 1) -> None:
        self.first = first
        self._limits = limits
        self._sizes: dict[int, int] = {}
        self._bytes = 0
        self._commits: dict[int, bytes] = {}

    def add(self, n: int, commit: bytes) -> None:
        if n >= self.first:
            self._sizes[n] = len(commit)
            self._bytes += len(commit)
            self._commits[n] = commit

    @property
    def due(self) -> bool:
        return len(self._sizes) >= self._limits.segment_commits or self._bytes >= self._limits.segment_bytes

    def due_from(self, n: int) -> bool:
        """Whether there would still be enough if the next segment ended before `n`."""
        rest = [size for number, size in self._sizes.items() if number >= n]
        return len(rest) >= self._limits.segment_commits or sum(rest) >= self._limits.segment_bytes

    def cut(self) -> range:
        """The numbers that the next segment holds: as many as the limits allow, at least one; empty if none is open."""
        size, stop = 0, self.first
        while stop in self._sizes and stop - self.first < self._limits.segment_commits:
            size += self._sizes[stop]
            if size > self._limits.segment_bytes and stop > self.first:
                break
            stop += 1
        return range(self.first, stop)

    def commit(self, n: int) -> bytes | None:
        """The bytes of commit `n`, unless shed."""
        return self._commits.get(n)

    def closed(self, last: int) -> None:
        """Forget what is in a segment now."""
        for n in range(self.first, last + 1):
            self._bytes -= self._sizes.pop(n, 0)
            self._commits.pop(n, None)
        self.first = max(self.first, last + 1)

    def shed(self) -> None:
        """Give the memory back; closing will read the commits from the store."""
        self._commits.clear()
