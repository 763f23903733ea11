"""An engine that several replicas share: it hands each activity to whom it likes, and sometimes to two at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any

from perdure.clock import Clock
from perdure.errors import NotFound
from perdure.sidecar.ports import Again, Drive, DriveFunction, HostBody, HostStatus, Pause
from perdure.types import JsonObject

LOST_S = 3.0
"""An activity that brought no answer for so long was given to a dead or frozen replica: it is given out again."""


@dataclass(eq=False)
class _Host:
    input: JsonObject
    status: HostStatus = HostStatus.RUNNING
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class SpreadEngine:
    """Hosts in this loop, outside of every process. `pick(n)` says which of n replicas drives."""

    def __init__(self, clock: Clock, pick: Callable[[int], int]) -> None:
        self._clock = clock
        self._pick = pick
        self._hosts: dict[str, _Host] = {}
        self._drives: list[DriveFunction] = []
        self._body: HostBody | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.given = 0

    @property
    def connected(self) -> bool:
        return bool(self._drives)

    @asynccontextmanager
    async def serve(self, body: HostBody, drive: DriveFunction) -> AsyncIterator[None]:
        self._body = body
        self._drives.append(drive)
        try:
            yield
        finally:
            self._drives.remove(drive)

    async def start(self, instance: str, input: JsonObject) -> None:
        if instance not in self._hosts:
            self._hosts[instance] = _Host(input)
            self._outside(self._run(self._hosts[instance]))

    async def wake(self, instance: str) -> None:
        host = self._hosts.get(instance)
        if host is None or host.status is not HostStatus.RUNNING:
            raise NotFound("host_unknown", f"no running host {instance}")
        host.woken.set()

    async def terminate(self, instance: str) -> None:
        raise NotImplementedError

    async def status(self, instance: str) -> HostStatus | None:
        host = self._hosts.get(instance)
        return host.status if host is not None else None

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _outside(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = Context().run(asyncio.get_running_loop().create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, host: _Host) -> None:
        assert self._body is not None
        steps, answer = self._body(host.input), None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                host.status = HostStatus.DONE
                return
            if isinstance(step, Drive):
                answer = await self._driven(step.input)
            elif isinstance(step, Pause):
                answer = await self._pause(host, step.seconds)
            elif isinstance(step, Again):
                steps, answer = self._body(step.input), None

    async def _driven(self, input: JsonObject) -> JsonObject:
        while True:
            if not self._drives:
                await self._clock.sleep(0.5)
                continue
            chosen = {self._pick(len(self._drives)) % len(self._drives) for _ in range(2)}
            self.given += len(chosen)
            going = [self._outside(self._quiet(self._drives[at], input)) for at in chosen]
            lost = self._outside(self._clock.sleep(LOST_S))  # type: ignore[arg-type]
            waiting: set[asyncio.Task[Any]] = {*going, lost}
            while not lost.done() and any(not task.done() for task in going):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                answers = [task.result() for task in done if task in going and task.result() is not None]
                if answers:
                    return answers[0]
            await self._clock.sleep(0.1)

    async def _quiet(self, drive: DriveFunction, input: JsonObject) -> JsonObject | None:
        try:
            return await drive(input)
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever it was, the activity is given out again
            return None

    async def _pause(self, host: _Host, seconds: float | None) -> bool:
        waits = {self._outside(host.woken.wait())}
        if seconds is not None:
            waits.add(self._outside(self._clock.sleep(seconds)))
        _, late = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in late:
            task.cancel()
        woken = host.woken.is_set()
        host.woken.clear()
        return woken
