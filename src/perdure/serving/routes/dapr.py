"""What the sidecar calls: subscriptions, messages, jobs. All of it also works without one."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Path, Request, Response

from perdure.errors import NotFound
from perdure.observability.context import log_context, received_trace
from perdure.observability.logs import get_logger
from perdure.serving.access import Built, Running
from perdure.serving.cloudevent import Malformed, parse_cloud_event
from perdure.serving.service import Service
from perdure.sidecar.ports import Bus, Delivery
from perdure.types import JsonObject

router = APIRouter(tags=["dapr"], include_in_schema=False)
log = get_logger(__name__)

Topic = Annotated[str, Path(max_length=512)]


@router.get("/dapr/config")
async def config() -> dict[str, list[str]]:
    """No actors live here."""
    return {"entities": []}


@router.get("/dapr/subscribe")
async def subscriptions(service: Built) -> list[dict[str, Any]]:
    """The topics that this service wants, with where its unreadable messages go."""
    return [
        {
            "pubsubname": bus.name,
            "topic": topic,
            "route": f"/events/{topic}",
            **({"deadLetterTopic": dead_letter} if dead_letter else {}),
        }
        for bus in service.doors.buses.values()
        for topic, dead_letter in bus.subscriptions.items()
    ]


@router.post("/events/{topic:path}")
async def message(topic: Topic, request: Request, service: Running) -> dict[str, str]:
    """Hand a message to its handler. One that cannot be understood goes to the dead-letter topic."""
    bus = _bus(service, topic)
    try:
        envelope = parse_cloud_event(await request.body(), topic)
    except Malformed as error:
        log.warning("message_dropped", topic=topic, error=str(error))
        return {"status": Delivery.DROP.value}
    with received_trace(envelope.trace_parent), log_context(message=envelope.id, source=envelope.source):
        return {"status": (await bus.deliver(envelope)).value}


@router.post("/job/{name}")
async def job(name: Annotated[str, Path(max_length=256)], request: Request, service: Running) -> Response:
    """A tick of a job."""
    await service.doors.jobs.deliver(name, _job_data(await request.body()))
    return Response(status_code=200)


def _bus(service: Service, topic: str) -> Bus:
    for bus in service.doors.buses.values():
        if topic in bus.subscriptions:
            return bus
    # For the sidecar 404 means: drop it. Nobody here ever asked for it.
    raise NotFound("topic_unknown", f"nobody here listens to topic {topic!r}", topic=topic)


def _job_data(body: bytes) -> JsonObject:
    """What was scheduled with the job: an object, wrapped by the sidecar as protobuf's JSON; none means empty."""
    try:
        data = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        return {}
    if isinstance(data, dict) and isinstance(data.get("value"), dict) and "@type" in data:
        data = data["value"]
    return data if isinstance(data, dict) else {"value": data}
