"""A pub/sub component: publishing through the sidecar; what arrives is handed over by the HTTP side."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from dapr.proto.runtime.v1.pubsub_pb2 import PublishEventRequest
from grpc.aio import AioRpcError

from perdure.errors import Invalid, NotFound
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.translation import translated
from perdure.sidecar.ports import BusHandler, Delivery, Envelope

log = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0
CLOUD_EVENT = "application/cloudevents+json"


def cloud_event(message: Envelope) -> dict[str, Any]:
    """`message` as the CloudEvent that the sidecar passes on unchanged."""
    event: dict[str, Any] = {
        **message.extensions,
        "specversion": "1.0",
        "id": message.id,
        "source": message.source,
        "type": message.type,
        "datacontenttype": "application/json",
        "data": message.data,
    }
    if message.trace_parent:
        # Without `traceid` the sidecar writes its own trace over both.
        event["traceparent"] = event["traceid"] = message.trace_parent
    return event


class DaprBus:
    """The `Bus` behind component `name` of the sidecar."""

    def __init__(self, channel: SidecarChannel, name: str, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.name = name
        self._channel = channel
        self._timeout_s = call_timeout_s
        self._handlers: dict[str, tuple[BusHandler, str | None]] = {}

    @property
    def subscriptions(self) -> Mapping[str, str | None]:
        return {topic: dead_letter for topic, (_, dead_letter) in self._handlers.items()}

    async def publish(self, message: Envelope) -> None:
        request = PublishEventRequest(
            pubsub_name=self.name,
            topic=message.topic,
            data=orjson.dumps(cloud_event(message)),
            data_content_type=CLOUD_EVENT,
        )
        try:
            await self._channel.stub.PublishEvent(request, timeout=self._timeout_s, metadata=self._channel.metadata)
        except AioRpcError as error:
            raise translated(error, "pub/sub", self.name) from error

    def subscribe(self, topic: str, handler: BusHandler, *, dead_letter: str | None = None) -> None:
        if topic in self._handlers:
            raise Invalid("topic_taken", f"topic {topic!r} of bus {self.name!r} has a handler already; give it one")
        self._handlers[topic] = (handler, dead_letter)

    async def deliver(self, envelope: Envelope) -> Delivery:
        declared = self._handlers.get(envelope.topic)
        if declared is None:
            raise NotFound(
                "topic_unknown",
                f"topic {envelope.topic!r} of bus {self.name!r} has no handler; declared: {sorted(self._handlers)}",
            )
        try:
            return await declared[0](envelope)
        except Exception:  # a handler may raise anything; the door's contract turns it into RETRY
            log.exception("handler of topic %s failed; the message is delivered again", envelope.topic)
            return Delivery.RETRY
