"""Dapr Workflow as the keeper of hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import orjson
from dapr.proto.runtime.v1.workflow_pb2 import (
    GetWorkflowRequest,
    RaiseEventWorkflowRequest,
    StartWorkflowRequest,
    TerminateWorkflowRequest,
)
from grpc import StatusCode
from grpc.aio import AioRpcError

from perdure.clock import Clock, SystemClock
from perdure.errors import Invalid, NotFound, PerdureError, SidecarUnavailable
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.translation import details, translated
from perdure.sidecar.dapr.workflow import WAKE, WAKE_PAYLOAD, WORKFLOW
from perdure.sidecar.hosts import require_instance_id
from perdure.sidecar.ports import DriveFunction, HostBody, HostStatus
from perdure.types import JsonObject

if TYPE_CHECKING:
    from perdure.sidecar.dapr.worker import Drives, HostWorker

COMPONENT = "dapr"
CALL_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 30.0
STATUSES = {
    "RUNNING": HostStatus.RUNNING,
    "PENDING": HostStatus.RUNNING,
    "SUSPENDED": HostStatus.RUNNING,
    "CONTINUED_AS_NEW": HostStatus.RUNNING,
    "STALLED": HostStatus.RUNNING,
    "COMPLETED": HostStatus.DONE,
    "FAILED": HostStatus.FAILED,
    "CANCELED": HostStatus.TERMINATED,
    "TERMINATED": HostStatus.TERMINATED,
}

TORN_READ_PAUSES_S = (0.005, 0.01, 0.02, 0.05, 0.1, None)
"""The sidecar reads an instance's rows one by one and refuses what changed in between (runtime before 1.18.3)."""


class DaprEngine:
    """The `Engine` over the sidecar's workflow API and a workflow worker in this process."""

    def __init__(
        self,
        channel: SidecarChannel,
        *,
        call_timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        clock: Clock | None = None,
    ) -> None:
        self._channel = channel
        self._clock: Clock = clock or SystemClock()
        self._timeout_s = call_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._worker: HostWorker | None = None

    @property
    def connected(self) -> bool:
        return self._worker is not None and self._worker.connected

    @asynccontextmanager
    async def serve(self, body: HostBody, drive: DriveFunction) -> AsyncIterator[None]:
        if self._worker is not None:
            raise Invalid("engine_serving", "this engine serves already; leave the first `serve` before a second")
        drives, worker = await self._made(body, drive)
        try:
            await self._started(worker)
            self._worker = worker
            yield
        finally:
            self._worker = None
            # First the worker, so that a drive cut here is not reported as failed but handed out again.
            await asyncio.shield(asyncio.to_thread(worker.stop))
            await drives.cancel()

    async def _made(self, body: HostBody, drive: DriveFunction) -> tuple[Drives, HostWorker]:
        """The SDK's worker is the heaviest import of all, so it comes with the first `serve`, and in a thread."""
        module = await asyncio.to_thread(import_module, "perdure.sidecar.dapr.worker")
        drives = module.Drives(drive)
        return drives, module.HostWorker(self._channel.address, body, drives)

    async def _started(self, worker: HostWorker) -> None:
        """The SDK's `start` blocks for as long as the sidecar is away, so it runs in a thread with an end."""
        starting = asyncio.create_task(asyncio.to_thread(worker.start), name="workflow worker start")
        done, _ = await asyncio.wait({starting}, timeout=self._connect_timeout_s)
        if not done:
            await asyncio.to_thread(worker.stop)
            await asyncio.gather(starting, return_exceptions=True)
            raise SidecarUnavailable(
                "worker_not_connected",
                f"the workflow worker did not reach the sidecar at {self._channel.address.grpc} within "
                f"{self._connect_timeout_s:g} s; is it running, with an actor state store, placement and scheduler?",
            )
        try:
            starting.result()
        except RuntimeError as error:
            raise SidecarUnavailable("worker_not_connected", f"the workflow worker did not start: {error}") from error

    async def start(self, instance: str, input: JsonObject) -> None:
        require_instance_id(instance)
        # The engine would start a finished instance anew under the same id.
        if await self.status(instance) is not None:
            return
        request = StartWorkflowRequest(
            instance_id=instance, workflow_component=COMPONENT, workflow_name=WORKFLOW, input=orjson.dumps(input)
        )
        try:
            await self._call("StartWorkflowBeta1", request)
        except AioRpcError as error:
            if await self.status(instance) is None:
                raise _translated(error) from error

    async def wake(self, instance: str) -> None:
        status = await self.status(instance)
        if status is not HostStatus.RUNNING:
            raise NotFound("host_unknown", f"no running host {instance!r} to wake; start one", instance=instance)
        request = RaiseEventWorkflowRequest(
            instance_id=instance,
            workflow_component=COMPONENT,
            event_name=WAKE,
            event_data=orjson.dumps(WAKE_PAYLOAD),
        )
        try:
            await self._call("RaiseEventWorkflowBeta1", request)
        except AioRpcError as error:
            raise _translated(error) from error

    async def terminate(self, instance: str) -> None:
        if await self.status(instance) is not HostStatus.RUNNING:
            return
        request = TerminateWorkflowRequest(instance_id=instance, workflow_component=COMPONENT)
        try:
            await self._call("TerminateWorkflowBeta1", request)
        except AioRpcError as error:
            if await self.status(instance) is HostStatus.RUNNING:
                raise _translated(error) from error

    async def status(self, instance: str) -> HostStatus | None:
        request = GetWorkflowRequest(instance_id=instance, workflow_component=COMPONENT)
        for pause_s in TORN_READ_PAUSES_S:
            try:
                reply = await self._call("GetWorkflowBeta1", request)
            except AioRpcError as error:
                if _unknown_instance(error):
                    return None
                if error.code() is not StatusCode.INTERNAL or pause_s is None:
                    raise _translated(error) from error
                await self._clock.sleep(pause_s)
            else:
                return STATUSES.get(reply.runtime_status.removeprefix("ORCHESTRATION_STATUS_"))
        return None

    async def _call(self, name: str, request: Any) -> Any:
        call = getattr(self._channel.stub, name)
        return await call(request, timeout=self._timeout_s, metadata=self._channel.metadata)


def _unknown_instance(error: AioRpcError) -> bool:
    text = (error.details() or "").lower()
    return error.code() is StatusCode.NOT_FOUND or "no such instance" in text or "unable to find workflow" in text


def _translated(error: AioRpcError) -> PerdureError:
    if error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED):
        return translated(error, "workflow", COMPONENT)
    return SidecarUnavailable("engine_unavailable", f"the workflow engine did not answer ({details(error)}); repeat")
