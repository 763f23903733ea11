"""A store that misbehaves on purpose: delays, loses requests, loses answers after writing, reorders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import StrEnum

from perdure.clock import Clock, SystemClock
from perdure.errors import Conflict, SidecarUnavailable
from perdure.sidecar.certain import SETTLE_S, CertainStore, Unsure
from perdure.sidecar.ports import Item, StateStore


class Fault(StrEnum):
    """What happens to one call."""

    NONE = "none"
    LOST = "lost"
    """The request never arrives; the caller learns nothing."""
    UNANSWERED = "unanswered"
    """It is done, the answer is lost."""
    LATE = "late"
    """The caller learns nothing, and it is done later: when `FaultyRawStore.release` is called."""
    SLOW = "slow"
    """It is done after `slow_s`."""


class FaultPlan:
    """Which fault the next call meets: those given, in turn, then none. Reads only meet LOST and SLOW."""

    def __init__(self, writes: Iterable[Fault] = (), reads: Iterable[Fault] = ()) -> None:
        self._writes, self._reads = iter(writes), iter(reads)

    def next_write(self, key: str) -> Fault:
        """The fault of this write."""
        return next(self._writes, Fault.NONE)

    def next_read(self, key: str) -> Fault:
        """The fault of this read."""
        return next(self._reads, Fault.NONE)


class FaultyRawStore:
    """A `RawStore` over any store. Like Redis behind Dapr it does not tell a refusal from a failure."""

    def __init__(self, inner: StateStore, plan: FaultPlan, *, slow_s: float = 0.05, clock: Clock | None = None) -> None:
        self.name = inner.name
        self.late: list[Callable[[], Awaitable[None]]] = []
        self._inner = inner
        self._plan = plan
        self._slow_s = slow_s
        self._clock: Clock = clock or SystemClock()

    async def release(self) -> None:
        """Let the late writes arrive, the newest first."""
        while self.late:
            try:
                await self.late.pop()()
            except Conflict:
                continue

    async def get(self, key: str) -> Item | None:
        await self._reading(key)
        return await self._inner.get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        await self._reading(",".join(keys))
        return await self._inner.get_many(keys)

    async def create(self, key: str, value: bytes) -> None:
        await self._writing(key, lambda: self._inner.create(key, value))

    async def put(self, key: str, value: bytes, etag: str | None) -> None:
        await self._writing(key, lambda: self._inner.put(key, value, etag=etag))

    async def delete(self, key: str, etag: str | None) -> None:
        await self._writing(key, lambda: self._inner.delete(key, etag=etag))

    async def check(self) -> None:
        await self._reading("check")

    async def _reading(self, key: str) -> None:
        match self._plan.next_read(key):
            case Fault.LOST:
                raise SidecarUnavailable("sidecar_unavailable", f"the read of {key!r} was lost, as planned")
            case Fault.SLOW:
                await self._clock.sleep(self._slow_s)
            case _:
                await asyncio.sleep(0)

    async def _writing(self, key: str, write: Callable[[], Awaitable[None]]) -> None:
        fault = self._plan.next_write(key)
        if fault is Fault.LATE:
            self.late.append(write)
        if fault in (Fault.LOST, Fault.LATE):
            raise Unsure(f"the write of {key!r} was {fault}, as planned")
        if fault is Fault.SLOW:
            await self._clock.sleep(self._slow_s)
        try:
            await write()
        except Conflict as refused:
            raise Unsure("failed to set key") from refused
        if fault is Fault.UNANSWERED:
            raise Unsure(f"the write of {key!r} was done but not answered, as planned")


class FaultyStateStore(CertainStore):
    """The `StateStore` over a `FaultyRawStore`, with the same read-back as the Dapr store."""

    def __init__(
        self,
        inner: StateStore,
        plan: FaultPlan,
        *,
        settle_s: float = SETTLE_S,
        slow_s: float = 0.05,
        clock: Clock | None = None,
    ) -> None:
        self.faulty = FaultyRawStore(inner, plan, slow_s=slow_s, clock=clock)
        super().__init__(self.faulty, settle_s=settle_s, clock=clock)
