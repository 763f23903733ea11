"""The log of one subject: append one commit at a time, never guess what became of a write."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace

from perdure.clock import Clock, Ids, rfc3339
from perdure.errors import Broken, Conflict, Invalid, NotFound, Transient
from perdure.log.blobs import Blobs
from perdure.log.commit import BlobRef, Commit, Stamp, decode, encode, encode_events
from perdure.log.erasure import Erasure
from perdure.log.head import Head, Heads
from perdure.log.keys import MARK, Keys
from perdure.log.limits import LogLimits
from perdure.log.reader import Reader
from perdure.log.segments import Open, Segment, Segments, Snapshot
from perdure.sidecar.ports import StateStore
from perdure.types import SubjectId

__all__ = ["Loaded", "Log", "LogLimits", "Snapshot"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a fold starts from, and the commits after it in order."""

    snapshot: Snapshot | None
    commits: tuple[Commit, ...]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A commit on its way to number `n`, and the blob written for it."""

    n: int
    id: str
    data: bytes
    blob: BlobRef | None


class Log:
    """A position in one subject's log, and the way to move it.

    One caller at a time: whoever appends, loads or reads on waits for that before the next such call
    (closing segments, retiring and reading history may go on beside it).
    """

    def __init__(
        self,
        store: StateStore,
        subject: SubjectId,
        *,
        clock: Clock,
        ids: Ids,
        limits: LogLimits | None = None,
        prefix: str = "",
    ) -> None:
        self.subject = subject
        self.n = 0
        self.last_id = ""
        self._store = store
        self._clock = clock
        self._ids = ids
        self._limits = limits or LogLimits()
        self._keys = Keys(subject, prefix)
        self._heads = Heads(store, self._keys)
        self._blobs = Blobs(store, self._keys, self._limits)
        self._segments = Segments(store, self._keys, self._heads, self._limits)
        self._reader = Reader(store, self._keys, self._heads, self._segments, self._blobs, self._limits)
        self._open = Open(self._limits)
        self._pending: _Attempt | None = None
        self._contested: list[_Attempt] = []
        self._orphans: list[BlobRef] = []
        self._busy = False
        self._closing = False

    @property
    def next_key(self) -> str:
        """The state key whose appearance means news."""
        return self._keys.commit(self.n + 1)

    @property
    def unsettled(self) -> bool:
        """Whether an append was interrupted and nobody knows yet what became of it."""
        return self._pending is not None

    @property
    def segment_due(self) -> bool:
        """Whether enough came since the last closed segment to close the next one."""
        return self._open.due

    async def load(self, *, snapshot_version: str) -> Loaded:
        """Everything a fold needs, from wherever it is cheapest; the position is the end of the log.

        With a snapshot of `snapshot_version` in the newest segment the cost does not depend on the length of the
        log; without one the whole log is read.

        Raises: NotFound (code `subject_erased`), Broken (code `log_gap`), Transient.
        """
        with self._alone():
            await self._settle()
            found = await self._store.get_many([self._keys.head, self._keys.commit(1)])
            head = self._heads.living(found.get(self._keys.head))
            start = await self._newest(head, snapshot_version)
            stored = list(start.commits)
            if start.snapshot is not None or self._keys.commit(1) in found:
                stored += [data async for _, data in self._reader.forward(start.last + 1, closed=head.last)]
            return await self._start_over(start, stored, closed=head.last)

    async def append(self, events: Sequence[object], *, epoch: int, driver: str, at: str = "") -> Stamp:
        """Add one commit after the last one known; durable when this returns. Its time is `at`, else now.

        Raises: Conflict (code `log_moved`) when something is there that was not read yet: nothing was appended
        unless `read_on` shows it; read on, fold, decide anew. Transient: the outcome is unknown until the next
        `read_on`, which settles it. Invalid (code `event_unwritable`).
        """
        with self._alone():
            if self._pending is not None:
                await self._settle()
                raise self._moved()
            await self._delete_orphans()
            at = at or rfc3339(self._clock.now())
            attempt = await self._attempt(events, epoch, driver, at)
            # Set before the write and cleared after it, so that whatever interrupts it, a cancelled caller
            # too, leaves an attempt to be settled.
            self._pending = attempt
            try:
                await self._store.create(self._keys.commit(attempt.n), attempt.data)
            except Conflict as error:
                self._pending = None
                raise self._moved() from error
            except (Invalid, NotFound):  # refused for good: nothing of it will ever be written
                self._pending = None
                raise
            self._pending = None
            stamp = Stamp(attempt.id, self.last_id, attempt.n, epoch, driver, at)
            self._move_to(stamp, attempt.data)
            return stamp

    async def read_on(self) -> tuple[Commit, ...]:
        """The commits after the last one known, in order; empty when there are none. Moves the position.

        An append whose outcome is unknown is settled first; if it was written, it is among these.

        Raises: NotFound (code `subject_erased`), Broken (code `log_gap`), Transient (nothing moved).
        """
        with self._alone():
            await self._settle()
            prev = self.last_id
            read: list[tuple[Commit, bytes]] = []
            try:
                async for n, data in self._reader.forward(self.n + 1):
                    commit = await self._reader.open(n, prev, data)
                    prev = commit.id
                    read.append((commit, data))
            except NotFound:
                for attempt in tuple(self._contested):
                    self._decide(attempt.n, "")
                await self._delete_orphans()
                raise
            for commit, data in read:
                self._move_to(commit, data)
            with suppress(Transient):
                # What was read must reach the caller; what is left to delete is deleted by the next call.
                await self._delete_orphans()
            return tuple(commit for commit, _ in read)

    async def history(self, start: int = 1, stop: int | None = None) -> AsyncIterator[Commit]:
        """The commits from `start` up to, not including, `stop` (None: to the end). Does not move the position.

        Raises: NotFound (code `subject_erased`), Broken (code `log_gap`).
        """
        head = self._heads.living(await self._store.get(self._keys.head))
        prev: str | None = "" if start == 1 else None
        if stop is not None and stop <= start:
            return
        async with aclosing(self._reader.forward(start, closed=head.last)) as stored:
            async for n, data in stored:
                commit = await self._reader.open(n, prev, data)
                prev = commit.id
                yield commit
                if stop is not None and n + 1 >= stop:
                    return

    async def close_segment(self, snapshot: Snapshot | None) -> None:
        """Write what is open once more as a segment, with `snapshot` if it is small enough, and move the hint there.

        May run beside appends. Where another replica closed it first, its segment is taken. Nothing open: nothing
        is done.

        Raises: NotFound (code `subject_erased`), Transient (call again).
        """
        if self._closing:
            return
        self._closing = True
        try:
            first = last = 0
            while (numbers := self._open.cut()) and (not last or self._open.due):
                segment = Segment(numbers.start, numbers.stop - 1, await self._stored(numbers))
                if snapshot is not None and snapshot.n >= segment.first - 1 and not self._open.due_from(numbers.stop):
                    segment = replace(segment, snapshot=snapshot)
                first, last = segment.first, await self._segments.create(segment)
                self._open.closed(last)
            if last:
                await self._heads.move(first=first, last=last)
            await self._delete_orphans()
        finally:
            self._closing = False

    async def retire(self, keep_from: int) -> int:
        """Overwrite commits below `keep_from` with marks where a segment has them; how many were overwritten."""
        head = self._heads.living(await self._store.get(self._keys.head))
        numbers = range(head.retired + 1, min(keep_from, head.last + 1))
        for n in numbers:
            await self._store.put(self._keys.commit(n), MARK)
        if numbers:
            await self._heads.move(retired=numbers[-1])
        return len(numbers)

    async def erase(self) -> None:
        """Erase the subject for ever, whoever else writes to it: marks stay, content does not.

        Done again it changes nothing; cut in the middle, done again it finishes.
        """
        await self._delete_orphans()
        await Erasure(self._store, self._keys, self._heads, self._segments, self._blobs, self._limits).run()

    def shed(self) -> None:
        """Give back the memory that makes closing a segment cheap."""
        self._open.shed()

    async def _newest(self, head: Head, snapshot_version: str) -> Segment:
        """The newest segment, if it has a snapshot of use; otherwise the nothing before commit 1."""
        segment = await self._segments.read(head.first) if head.last else None
        if segment is None or segment.snapshot is None or segment.snapshot.n < segment.first - 1:
            return Segment(1, 0, ())
        return segment if segment.snapshot.version == snapshot_version else Segment(1, 0, ())

    async def _start_over(self, start: Segment, stored: Sequence[bytes], *, closed: int) -> Loaded:
        folded = start.snapshot.n if start.snapshot is not None else 0
        last = start.first + len(stored) - 1
        if last < folded:
            raise self._reader.gap(last + 1, f"is missing, a snapshot has folded up to {folded}")
        prev = "" if start.first == 1 else None
        if folded >= start.first:
            prev = decode(stored[folded - start.first], self.subject).id
        opened = Open(self._limits, closed + 1)
        commits: list[Commit] = []
        for n, data in enumerate(stored, start.first):
            opened.add(n, data)
            if n > folded:
                commits.append(await self._reader.open(n, prev, data))
                prev = commits[-1].id
        for attempt in tuple(self._contested):
            if start.first <= attempt.n <= last:
                self._decide(attempt.n, decode(stored[attempt.n - start.first], self.subject).id)
        self.n, self.last_id, self._open = last, prev or "", opened
        return Loaded(start.snapshot, tuple(commits))

    async def _attempt(self, events: Sequence[object], epoch: int, driver: str, at: str) -> _Attempt:
        n, commit = self.n + 1, self._ids.new()
        content = events if isinstance(events, list | tuple) else list(events)
        data = encode(commit, self.last_id, n, epoch, driver, at, content)
        if len(data) <= self._limits.blob_bytes:
            return _Attempt(n, commit, data, None)
        large = encode_events(content)
        blob = self._blobs.refer(commit, large)
        self._orphans.append(blob)
        await self._blobs.write(blob, large)
        self._orphans.remove(blob)
        data = encode(commit, self.last_id, n, epoch, driver, at, blob)
        attempt = _Attempt(n, commit, data, blob)
        self._contested.append(attempt)
        return attempt

    async def _settle(self) -> None:
        """Return when the number of a pending attempt is occupied, by whomever; reading on tells by whom."""
        await self._delete_orphans()
        if self._pending is None:
            return
        with suppress(Conflict):
            # The identical bytes: if the first write arrives late, it changes nothing.
            await self._store.create(self._keys.commit(self._pending.n), self._pending.data)
        self._pending = None

    def _move_to(self, commit: Stamp, data: bytes) -> None:
        self.n, self.last_id = commit.n, commit.id
        self._open.add(commit.n, data)
        if self._contested:
            self._decide(commit.n, commit.id)

    def _decide(self, n: int, id: str) -> None:
        """Commit `n` has this id: the blob of an attempt at `n` that has another belongs to nothing."""
        lost = [attempt for attempt in self._contested if attempt.n == n and attempt.id != id]
        self._orphans += [attempt.blob for attempt in lost if attempt.blob is not None]
        self._contested = [attempt for attempt in self._contested if attempt.n != n]

    async def _delete_orphans(self) -> None:
        """Remove blobs whose commit was never written, so that erasing the subject leaves nothing of them."""
        while self._orphans:
            await self._blobs.delete(self._orphans[-1])
            self._orphans.pop()

    async def _stored(self, numbers: range) -> tuple[bytes, ...]:
        cached = tuple(data for n in numbers if (data := self._open.commit(n)) is not None)
        if len(cached) == len(numbers):
            return cached
        read: list[bytes] = []
        async with aclosing(self._reader.forward(numbers.start)) as stored:
            async for n, data in stored:
                read.append(data)
                if n + 1 == numbers.stop:
                    return tuple(read)
        raise self._reader.gap(numbers.start + len(read), "is missing")

    def _moved(self) -> Conflict:
        return Conflict(
            "log_moved",
            f"the log of subject {self.subject} has moved past commit {self.n}; read on and decide anew",
            subject=self.subject,
            n=self.n,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._busy:
            raise Broken(
                "log_in_use",
                f"two callers use the log of subject {self.subject} at once; hold one lock per subject",
                subject=self.subject,
            )
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
