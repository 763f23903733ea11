"""Schedules in this process."""

from __future__ import annotations

import asyncio
import logging

from perdure.clock import Clock, SystemClock
from perdure.errors import NotFound
from perdure.sidecar.memory.tasks import OwnedTasks
from perdure.sidecar.ports import JobHandler
from perdure.sidecar.schedule import every_seconds
from perdure.types import JsonObject

log = logging.getLogger(__name__)


class MemoryJobs:
    """Timers; they tick while it is open and are set anew by the app at its start."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._handlers: dict[str, JobHandler] = {}
        self._planned: dict[str, tuple[float, JsonObject]] = {}
        self._ticking: dict[str, asyncio.Task[None]] = {}
        self._tasks = OwnedTasks()

    async def __aenter__(self) -> MemoryJobs:
        await self._tasks.__aenter__()
        for name in self._planned:
            self._begin(name)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._ticking.clear()
        await self._tasks.__aexit__(None, None, None)

    async def schedule(self, name: str, every: str, data: JsonObject | None = None) -> None:
        seconds = every_seconds(every)
        await self.cancel(name)
        self._planned[name] = (seconds, data or {})
        if self._tasks.open:
            self._begin(name)

    async def cancel(self, name: str) -> None:
        self._planned.pop(name, None)
        if (ticking := self._ticking.pop(name, None)) is not None:
            ticking.cancel()

    def on(self, name: str, handler: JobHandler) -> None:
        self._handlers[name] = handler

    async def deliver(self, name: str, data: JsonObject) -> None:
        handler = self._handlers.get(name)
        if handler is None:
            raise NotFound("job_unknown", f"job {name!r} has no handler; declared: {sorted(self._handlers)}")
        await handler(data)

    def _begin(self, name: str) -> None:
        self._ticking[name] = self._tasks.spawn(self._tick(name), name=f"job {name}")

    async def _tick(self, name: str) -> None:
        seconds, data = self._planned[name]
        while True:
            await self._clock.sleep(seconds)
            try:
                await self.deliver(name, data)
            except Exception:  # one bad tick must not end the schedule, as with the sidecar's own jobs
                log.exception("a tick of job %s failed; the next one comes in %g s", name, seconds)
