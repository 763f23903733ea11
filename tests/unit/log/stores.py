"""What the tests of the log stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from perdure.clock import SystemIds
from perdure.errors import Invalid, Transient
from perdure.log.log import Log, LogLimits
from perdure.log.subject import subject_id
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.sidecar.ports import Item
from perdure.testing.clock import FakeClock

SUBJECT = subject_id("tests", "", "agent", "session")


class WatchedStore(MemoryStateStore):
    """A memory store that counts calls and bytes, and lets the next create fail or hang."""

    def __init__(self) -> None:
        super().__init__("watched")
        self.reads = 0
        self.written = 0
        self.largest_reply = 0
        self.created: list[tuple[str, bytes]] = []
        self.failures: list[str] = []

    async def get(self, key: str) -> Item | None:
        self.reads += 1
        return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        self.reads += 1
        found = await super().get_many(keys)
        self.largest_reply = max(self.largest_reply, sum(len(item.value) for item in found.values()))
        return found

    async def create(self, key: str, value: bytes) -> None:
        self.created.append((key, value))
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "refused":
            raise Transient("store_away", "try again")
        if failure == "for good":
            raise Invalid("too_large", "it is too large")
        await super().create(key, value)
        self.written += len(value)
        if failure == "lost":
            raise Transient("store_away", "try again")
        if failure == "hangs":
            await asyncio.Event().wait()

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await super().put(key, value, etag=etag)
        self.written += len(value)


def log_over(store: MemoryStateStore, limits: LogLimits | None = None) -> Log:
    """A log that knows nothing yet."""
    clock = FakeClock(datetime(2026, 1, 31, 8, tzinfo=UTC))
    return Log(store, SUBJECT, clock=clock, ids=SystemIds(), limits=limits)


async def write(log: Log, count: int, *, size: int = 10) -> None:
    """Append `count` commits of one event each, closing segments when they are due."""
    for _ in range(count):
        await log.append([{"text": "x" * size, "number": log.n + 1}], epoch=1, driver="d")
        if log.segment_due:
            await log.close_segment(None)
