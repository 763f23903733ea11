"""Schedules kept by the sidecar's scheduler."""

from __future__ import annotations

from dapr.proto.runtime.v1.jobs_pb2 import DeleteJobRequest, Job, ScheduleJobRequest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value
from grpc import StatusCode
from grpc.aio import AioRpcError

from perdure.errors import NotFound
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.translation import translated
from perdure.sidecar.ports import JobHandler
from perdure.sidecar.schedule import every_seconds
from perdure.types import JsonObject

CALL_TIMEOUT_S = 5.0


class DaprJobs:
    """The sidecar's jobs; each tick comes to one replica as `POST /job/{name}`, which the HTTP side delivers."""

    def __init__(self, channel: SidecarChannel, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._channel = channel
        self._timeout_s = call_timeout_s
        self._handlers: dict[str, JobHandler] = {}

    async def schedule(self, name: str, every: str, data: JsonObject | None = None) -> None:
        every_seconds(every)
        job = Job(name=name, schedule=every)
        if data is not None:
            packed = AnyMessage()
            packed.Pack(ParseDict(data, Value()))
            job.data.CopyFrom(packed)
        request = ScheduleJobRequest(job=job, overwrite=True)
        try:
            await self._channel.stub.ScheduleJob(request, timeout=self._timeout_s, metadata=self._channel.metadata)
        except AioRpcError as error:
            raise translated(error, "jobs", "scheduler") from error

    async def cancel(self, name: str) -> None:
        request = DeleteJobRequest(name=name)
        try:
            await self._channel.stub.DeleteJob(request, timeout=self._timeout_s, metadata=self._channel.metadata)
        except AioRpcError as error:
            if error.code() is not StatusCode.NOT_FOUND:
                raise translated(error, "jobs", "scheduler") from error

    def on(self, name: str, handler: JobHandler) -> None:
        self._handlers[name] = handler

    async def deliver(self, name: str, data: JsonObject) -> None:
        handler = self._handlers.get(name)
        if handler is None:
            raise NotFound("job_unknown", f"job {name!r} has no handler; declared: {sorted(self._handlers)}")
        await handler(data)
