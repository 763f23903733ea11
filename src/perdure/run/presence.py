"""Which subjects this replica drives, written down so that another life of it, or another replica, can adopt them.

One document per replica (`slot`) with a counter that grows while it drives anything, and one per app that lists
the slots. Clocks of two machines are never compared: an observer sees whether a counter moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from pydantic import TypeAdapter

from perdure.clock import Clock
from perdure.errors import Conflict
from perdure.sidecar.ports import StateStore
from perdure.state.document import Document
from perdure.types import Slot, SubjectId

FORGOTTEN_KEPT = 1024
"""Drivers remembered as unlisted; a forgotten one only begins its grace anew."""

_SLOTS: TypeAdapter[tuple[Slot, ...]] = TypeAdapter(tuple[Slot, ...])


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica's document: `subjects` maps what it drives to the family of its kind."""

    slot: Slot
    boot: str
    counter: int
    subjects: Mapping[SubjectId, str] = field(default_factory=dict)


def _dump(value: object) -> bytes:
    return orjson.dumps(value)


def _replica(data: bytes) -> Replica:
    fields = orjson.loads(data)
    return Replica(fields["slot"], fields["boot"], fields["counter"], fields["subjects"])


class Replicas:
    """The documents of all replicas of one app in one store."""

    def __init__(self, store: StateStore, prefix: str, app_id: str) -> None:
        self._store = store
        self._slots: Document[tuple[Slot, ...]] = Document(store, f"{prefix}replicas/{app_id}", _SLOTS, ())
        self._prefix = f"{prefix}replica/{app_id}/"

    async def read(self, slot: Slot) -> Replica | None:
        """What `slot` last wrote, or None."""
        item = await self._store.get(self._prefix + slot)
        return _replica(item.value) if item is not None else None

    async def write(self, replica: Replica) -> None:
        """Replace the document. Only the replica itself does this, so the last write wins."""
        await self._store.put(self._prefix + replica.slot, _dump(replica))

    async def all(self) -> dict[Slot, Replica]:
        """Every listed replica that ever wrote its document."""
        slots = (await self._slots.load()).value
        found = await self._store.get_many([self._prefix + slot for slot in slots])
        replicas = [_replica(one.value) for one in found.values()]
        return {replica.slot: replica for replica in replicas}

    async def enlist(self, slot: Slot) -> None:
        """Make sure that observers will look at `slot`."""
        await self._slots.update(lambda slots: slots if slot in slots else (*slots, slot))

    async def retire(self, gone: Replica, keep: Mapping[SubjectId, str]) -> bool:
        """Empty and unlist a replica that others have adopted, but for `keep`; False when it has moved meanwhile."""
        item = await self._store.get(self._prefix + gone.slot)
        if item is None or _replica(item.value) != gone:
            return False
        emptied = Replica(gone.slot, gone.boot, gone.counter, keep)
        try:
            await self._store.put(self._prefix + gone.slot, _dump(emptied), etag=item.etag)
        except Conflict:
            return False
        if not keep:
            await self._slots.update(lambda slots: tuple(slot for slot in slots if slot != gone.slot))
            if await self.read(gone.slot) != emptied:
                await self.enlist(gone.slot)  # it came back in between, and may have found itself still listed
        return True


class Presence:
    """This replica's own document. Writers that come while a write is on its way share the next one."""

    def __init__(self, replicas: Replicas, slot: Slot, boot: str, clock: Clock, stale_s: float) -> None:
        self._replicas = replicas
        self._slot = slot
        self._boot = boot
        self._clock = clock
        self._stale_s = stale_s
        self._counter = 0
        self._wanted: dict[SubjectId, str] = {}
        self._left: dict[SubjectId, float] = {}
        self._confirmed: dict[SubjectId, str] = {}
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._written_at = float("-inf")

    @property
    def idle(self) -> bool:
        """Whether the document says that nothing is driven: then nobody has to beat."""
        return not self._wanted and not self._confirmed

    async def restore(self) -> dict[SubjectId, str]:
        """What this slot's former life left; it counts as driven here from now on."""
        before = await self._replicas.read(self._slot)
        if before is not None:
            self._counter = before.counter
            self._wanted.update(before.subjects)
            self._confirmed.update(before.subjects)
        return dict(self._wanted)

    def has(self, subject: SubjectId) -> bool:
        """Whether the durable document names `subject`, for as long as nobody says `leave`."""
        self._left.pop(subject, None)
        return subject in self._confirmed and subject in self._wanted and not self._overdue

    async def enter(self, subject: SubjectId, family: str) -> None:
        """Return when the document that names `subject` is durable."""
        self._wanted.pop(subject, None)
        self._wanted[subject] = family  # behind all others, which are more likely to have ended: adopted before them
        while not self.has(subject):
            await self._write()

    def leave(self, subject: SubjectId) -> None:
        """`subject` needs no adopter any more; written with a later beat, so that a busy session costs nothing."""
        if subject in self._wanted:
            self._left[subject] = self._clock.monotonic()

    async def beat(self, grace_s: float) -> None:
        """Show that this replica lives, without the subjects that left longer than `grace_s` ago."""
        now = self._clock.monotonic()
        for subject, since in list(self._left.items()):
            if now - since >= grace_s:
                del self._left[subject]
                self._wanted.pop(subject, None)
        if not self.idle:
            await self._write()

    @property
    def _overdue(self) -> bool:
        """So long without a write that an observer may have retired this slot."""
        return self._clock.monotonic() - self._written_at > self._stale_s / 2

    async def _write(self) -> None:
        if self._next is None:
            self._next = asyncio.create_task(self._write_next(), name="presence")
        await asyncio.shield(self._next)

    async def _write_next(self) -> None:
        async with self._lock:
            self._next = None
            overdue = self._overdue
            self._counter += 1
            listed = dict(self._wanted)
            if overdue:  # before, so that whatever the document names is found; after, in case it was just retired
                await self._replicas.enlist(self._slot)
            await self._replicas.write(Replica(self._slot, self._boot, self._counter, listed))
            if overdue:
                await self._replicas.enlist(self._slot)
            self._confirmed = listed
            self._written_at = self._clock.monotonic()


class Watcher:
    """Judges other replicas by whether their counters move, on this process's own clock."""

    def __init__(self, clock: Clock, stale_s: float) -> None:
        self._clock = clock
        self._stale_s = stale_s
        self._seen: dict[Slot, tuple[str, int, float]] = {}
        self._unlisted: dict[str, float] = {}
        self.grace_s = stale_s / 5

    def forgotten(self, driver: str) -> bool:
        """Whether `driver` was seen driving what its replica does not list, for longer than the listing may lag.

        The claim and the list are written at once, so for a moment one may be seen without the other.
        """
        now = self._clock.monotonic()
        first = self._unlisted.setdefault(driver, now)
        if len(self._unlisted) > FORGOTTEN_KEPT:
            del self._unlisted[next(iter(self._unlisted))]
        return now - first >= self.grace_s

    def stale(self, replica: Replica) -> bool:
        """Whether it drives something and its counter has not moved for the stale time since first seen so."""
        now = self._clock.monotonic()
        seen = self._seen.get(replica.slot)
        if seen is None or seen[:2] != (replica.boot, replica.counter):
            self._seen[replica.slot] = (replica.boot, replica.counter, now)
            return False
        return bool(replica.subjects) and now - seen[2] >= self._stale_s
