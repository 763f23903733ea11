"""An engine in this process: one task per open host, with real timers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from perdure.clock import Clock, SystemClock
from perdure.errors import Broken, Invalid, NotFound, Transient
from perdure.sidecar.hosts import require_instance_id
from perdure.sidecar.memory.instances import InstanceBook
from perdure.sidecar.memory.tasks import OwnedTasks
from perdure.sidecar.ports import Again, Drive, DriveFunction, HostBody, HostStatus, Pause, StateStore
from perdure.types import JsonObject

log = logging.getLogger(__name__)

RETRY_S = (0.1, 0.5, 1.0, 5.0)
"""Waits before a drive that failed for a passing reason is repeated."""


@dataclass(eq=False)
class _Host:
    instance: str
    input: JsonObject
    status: HostStatus = HostStatus.RUNNING
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class MemoryEngine:
    """Keeps hosts while it lives; with a `store`, instances survive the process and go on at the next `serve`."""

    def __init__(self, *, clock: Clock | None = None, store: StateStore | None = None) -> None:
        self._clock: Clock = clock or SystemClock()
        self._book = InstanceBook(store) if store is not None else None
        self._hosts: dict[str, _Host] = {}
        self._tasks: OwnedTasks | None = None
        self._body: HostBody | None = None
        self._drive: DriveFunction | None = None

    @property
    def connected(self) -> bool:
        return self._tasks is not None

    @asynccontextmanager
    async def serve(self, body: HostBody, drive: DriveFunction) -> AsyncIterator[None]:
        if self._tasks is not None:
            raise Invalid("engine_serving", "this engine serves already; leave the first `serve` before a second")
        if self._book is not None:
            for instance, given in (await self._book.open_instances()).items():
                self._hosts.setdefault(instance, _Host(instance, given))
        async with OwnedTasks() as tasks:
            self._tasks, self._body, self._drive = tasks, body, drive
            for host in self._hosts.values():
                if host.status is HostStatus.RUNNING:
                    self._begin(host)
            try:
                yield
            finally:
                self._tasks = None

    async def start(self, instance: str, input: JsonObject) -> None:
        require_instance_id(instance)
        if instance in self._hosts or await self._recorded(instance) is not None:
            return
        host = self._hosts.setdefault(instance, _Host(instance, input))
        if self._book is not None:
            await self._book.record(instance, input)
        self._begin(host)

    async def wake(self, instance: str) -> None:
        host = self._hosts.get(instance)
        if host is None or host.status is not HostStatus.RUNNING:
            raise NotFound("host_unknown", f"no running host {instance!r} to wake; start one", instance=instance)
        host.woken.set()

    async def terminate(self, instance: str) -> None:
        host = self._hosts.get(instance)
        if host is None or host.status is not HostStatus.RUNNING:
            return
        await self._close(host, HostStatus.TERMINATED)
        if host.task is not None:
            host.task.cancel()

    async def status(self, instance: str) -> HostStatus | None:
        host = self._hosts.get(instance)
        return host.status if host is not None else await self._recorded(instance)

    async def _recorded(self, instance: str) -> HostStatus | None:
        return await self._book.status(instance) if self._book is not None else None

    def _begin(self, host: _Host) -> None:
        if self._tasks is not None and (host.task is None or host.task.done()):
            host.task = self._tasks.spawn(self._run(host), name=f"host {host.instance}")

    async def _run(self, host: _Host) -> None:
        try:
            while not await self._round(host):
                pass
        except Exception:  # the drive may raise anything; the engine reports it as the host's status
            log.exception("host %s failed", host.instance)
            await self._close(host, HostStatus.FAILED)
        else:
            await self._close(host, HostStatus.DONE)

    async def _round(self, host: _Host) -> bool:
        """Run the body from its input; False when it asked to start over."""
        if self._body is None:
            raise Broken("engine_idle", "a host ran outside `serve`; report this")
        steps = self._body(host.input)
        answer: Any = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                return True
            match step:
                case Drive(input=input):
                    answer = await self._driven(host, input)
                case Pause(seconds=seconds):
                    answer = await self._woken(host, seconds)
                case Again(input=input):
                    host.input = input
                    if self._book is not None:
                        await self._book.renew(host.instance, input)
                    return False

    async def _driven(self, host: _Host, input: JsonObject) -> JsonObject:
        attempt = 0
        while True:
            if self._drive is None or self._tasks is None:
                raise asyncio.CancelledError
            # Its own task: terminating a host does not cut what the drive is doing, as with Dapr.
            driving = self._tasks.spawn(_quiet(self._drive, input), name=f"drive {host.instance}")
            result = await asyncio.shield(driving)
            if not isinstance(result, Exception):
                return dict(result)
            if not isinstance(result, Transient):
                raise result
            log.info("drive of host %s is repeated: %s", host.instance, result)
            await self._clock.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            attempt += 1

    async def _woken(self, host: _Host, seconds: float | None) -> bool:
        if not host.woken.is_set():
            waits = {asyncio.ensure_future(host.woken.wait())}
            if seconds is not None:
                waits.add(asyncio.ensure_future(self._clock.sleep(max(seconds, 0.0))))  # type: ignore[arg-type]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        woken = host.woken.is_set()
        host.woken.clear()
        return woken

    async def _close(self, host: _Host, status: HostStatus) -> None:
        if host.status is HostStatus.RUNNING:
            host.status = status
            if self._book is not None:
                await self._book.close(host.instance, status)


async def _quiet(drive: DriveFunction, input: JsonObject) -> JsonObject | Exception:
    try:
        return await drive(input)
    except Exception as error:  # noqa: BLE001 - handed to the host, which decides and reports
        return error
