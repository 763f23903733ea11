"""Dapr Workflow as the keeper of hosts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from dapr.ext.workflow import WorkflowActivityContext, WorkflowRuntime
from dapr.ext.workflow._durabletask.internal.grpc_interceptor import DefaultClientInterceptorImpl
from dapr.ext.workflow.logger import LoggerOptions
from dapr.proto.runtime.v1.workflow_pb2 import (
    GetWorkflowRequest,
    RaiseEventWorkflowRequest,
    StartWorkflowRequest,
    TerminateWorkflowRequest,
)
from grpc import StatusCode
from grpc.aio import AioRpcError

from perdure.errors import Invalid, NotFound, PerdureError, SidecarUnavailable, Transient
from perdure.sidecar.dapr.channel import DaprAddress, SidecarChannel
from perdure.sidecar.dapr.translation import details, translated
from perdure.sidecar.dapr.workflow import ACTIVITY, FAILURE, TRANSIENT, WAKE, WAKE_PAYLOAD, WORKFLOW, hosting
from perdure.sidecar.hosts import require_instance_id
from perdure.sidecar.ports import DriveFunction, HostBody, HostStatus
from perdure.types import JsonObject

log = logging.getLogger(__name__)

COMPONENT = "dapr"
CALL_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 30.0
CONCURRENT_DRIVES = 10_000
"""Drives wait more than they work, and each replica bounds its runs by itself."""

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

ActivityFunction = Callable[[WorkflowActivityContext, Any], Awaitable[JsonObject]]


class DaprEngine:
    """The `Engine` over the sidecar's workflow API and a workflow worker in this process."""

    def __init__(
        self,
        channel: SidecarChannel,
        *,
        call_timeout_s: float = CALL_TIMEOUT_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self._channel = channel
        self._timeout_s = call_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._runtime: WorkflowRuntime | None = None

    @property
    def connected(self) -> bool:
        return self._runtime is not None and _stream_open(self._runtime)

    @asynccontextmanager
    async def serve(self, body: HostBody, drive: DriveFunction) -> AsyncIterator[None]:
        if self._runtime is not None:
            raise Invalid("engine_serving", "this engine serves already; leave the first `serve` before a second")
        runtime = _runtime(self._channel.address, body, drive)
        try:
            await self._started(runtime)
            self._runtime = runtime
            yield
        finally:
            self._runtime = None
            await asyncio.shield(asyncio.to_thread(runtime.shutdown))

    async def _started(self, runtime: WorkflowRuntime) -> None:
        """The SDK's `start` blocks for as long as the sidecar is away, so it runs in a thread with an end."""
        starting = asyncio.create_task(asyncio.to_thread(runtime.start), name="workflow worker start")
        done, _ = await asyncio.wait({starting}, timeout=self._connect_timeout_s)
        if not done:
            await asyncio.to_thread(runtime.shutdown)
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
        try:
            reply = await self._call("GetWorkflowBeta1", request)
        except AioRpcError as error:
            if _unknown_instance(error):
                return None
            raise _translated(error) from error
        return STATUSES.get(reply.runtime_status.removeprefix("ORCHESTRATION_STATUS_"))

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


def _stream_open(runtime: WorkflowRuntime) -> bool:
    """The public question, `wait_for_worker_ready`, sleeps in the caller's thread; the worker behind it answers."""
    worker: Any = getattr(runtime, "_WorkflowRuntime__worker")  # noqa: B009 - written out, the name would be mangled
    return bool(worker.is_worker_ready())


def _runtime(address: DaprAddress, body: HostBody, drive: DriveFunction) -> WorkflowRuntime:
    host, _, port = address.grpc.rpartition(":")
    interceptors = [DefaultClientInterceptorImpl(list(address.metadata))] if address.metadata else None
    runtime = WorkflowRuntime(
        host=host,
        port=port,
        interceptors=interceptors,
        maximum_concurrent_activity_work_items=CONCURRENT_DRIVES,
        # The SDK's records go where the application's go, instead of to a handler of its own.
        logger_options=LoggerOptions(log_level="WARNING", log_handler=logging.NullHandler()),
    )
    runtime.register_workflow(hosting(body), name=WORKFLOW)
    runtime.register_activity(_driving(drive, asyncio.get_running_loop()), name=ACTIVITY)
    return runtime


def _driving(drive: DriveFunction, loop: asyncio.AbstractEventLoop) -> ActivityFunction:
    """The activity: runs `drive` on the application's own loop while the worker's loop waits."""

    async def driving(_: WorkflowActivityContext, input: Any) -> JsonObject:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_answer(drive, input), loop))

    return driving


async def _answer(drive: DriveFunction, input: JsonObject) -> JsonObject:
    try:
        return await drive(input)
    except Transient as error:
        log.info("a drive is repeated by its host: %s", error)
        return {FAILURE: TRANSIENT}
    except Exception as error:  # the drive may raise anything; its host must hear of it, or it waits for ever
        log.exception("a drive failed; its host ends as failed")
        return {FAILURE: f"{type(error).__name__}: {error}"}
