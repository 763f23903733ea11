"""The HTTP side of pipelines and of step handlers."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

import orjson
from fastapi import APIRouter, Header, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from perdure.errors import Invalid, NotFound
from perdure.log.subject import parse_run_id
from perdure.observability.context import log_context
from perdure.observability.tracing import current_trace_parent
from perdure.pipeline.accept import checked_key
from perdure.pipeline.server import StepCall, StepServer
from perdure.pipeline.work import begin
from perdure.serving.access import Caller, Running
from perdure.serving.reply import reply
from perdure.serving.requests import LONGEST_WAIT_S, Body, CancelBody, Name, Payload
from perdure.serving.service import Service
from perdure.serving.sse import event_stream, position
from perdure.serving.turns import ended
from perdure.types import Json, JsonObject, RunId

runs = APIRouter(prefix="/runs", tags=["pipelines"])
steps = APIRouter(tags=["steps"])

RunPath = Annotated[str, Path(description="As given when the run was accepted.", max_length=64)]
StepPath = Annotated[str, Path(max_length=64)]


# --- runs ---------------------------------------------------------------------------------------


class RunBody(Body):
    """A run of a pipeline."""

    pipeline: Name
    input: Payload = Field(default_factory=dict, description="What the entry steps receive as `data`.")
    key: Name | None = Field(None, description="Asking again with the same key joins the same run.")
    wait_s: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S)] = Field(0, description="Wait so long for its end.")


@runs.post("")
async def start(
    body: RunBody, service: Running, caller: Caller, idempotency_key: Annotated[str | None, Header()] = None
) -> Response:
    """Begin a run, or join the one with this key: 202 with `Location`; 200 when it has ended."""
    if idempotency_key and body.key and idempotency_key != body.key:
        raise Invalid("key_ambiguous", "`key` and the header Idempotency-Key differ; send one of them")
    key = checked_key(body.key or idempotency_key or service.ids.new())
    accepted = await begin(
        service.runner, service.pipelines, body.pipeline, dict(body.input), key, by=caller, trace=current_trace_parent()
    )
    with log_context(run=accepted.run_id):
        shown = await _waited(service, accepted.run_id, body.wait_s)
    status = HTTPStatus.OK if ended(shown) else HTTPStatus.ACCEPTED
    return reply(shown, status, Location=f"/runs/{accepted.run_id}")


async def _waited(service: Service, run: RunId, seconds: float) -> JsonObject:
    return await service.turns.wait(run, seconds, service.draining)


@runs.get("/{run}")
async def show(run: RunPath, service: Running) -> Response:
    """The run with its steps, as it is now."""
    return reply(await service.runner.describe(_run(run)))


@runs.get("/{run}/events")
async def follow(
    run: RunPath, service: Running, last_event_id: Annotated[str | None, Header()] = None
) -> StreamingResponse:
    """The run's events, old then live (SSE); resumes after `Last-Event-ID`."""
    after = position(last_event_id)
    await service.runner.describe(_run(run))
    events = service.runner.events(_run(run), after)
    return event_stream(events, keep_alive_s=service.settings.http.keep_alive_s, stop=service.draining)


@runs.post("/{run}/pause")
async def pause(run: RunPath, service: Running, caller: Caller) -> Response:
    """No new step starts until the run is resumed."""
    await service.runner.pause(_run(run), caller)
    return await show(run, service)


@runs.post("/{run}/resume")
async def resume(run: RunPath, service: Running, caller: Caller) -> Response:
    """End a pause."""
    await service.runner.resume(_run(run), caller)
    return await show(run, service)


@runs.post("/{run}/cancel")
async def cancel(run: RunPath, service: Running, caller: Caller, body: CancelBody | None = None) -> Response:
    """End the run as cancelled once its steps have stopped."""
    await service.runner.cancel(_run(run), body.reason if body else "", caller)
    return await show(run, service)


def _run(text: str) -> RunId:
    """Raises: Invalid (`run_id_malformed`)."""
    parse_run_id(text)
    return RunId(text)


# --- steps that other apps ask for --------------------------------------------------------------


class StepBody(Body):
    """One call of a step."""

    key: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_.:-]+$")]
    run: Annotated[str, Field(min_length=1, max_length=256)]
    attempt: Annotated[int, Field(ge=1)]
    fence: Annotated[int, Field(ge=0)]
    message: Payload


@steps.post("/steps/{step}")
async def handle(step: StepPath, body: StepBody, service: Running) -> Response:
    """Handle a step, once: the same key is answered from its receipt ever after."""
    server = _server(service, step)
    call = StepCall(body.key, body.run, body.attempt, body.fence, dict(body.message))
    output = await server.handle(step, call)
    return reply({"output": orjson.loads(output)})


@steps.get("/steps")
async def list_steps(service: Running) -> Response:
    """The steps that this service handles."""
    listed: list[Json] = [
        {"agent": agent, "step": name, "effect": handler.effect.value, "timeout_s": handler.timeout_s}
        for agent, server in service.steps.items()
        for name, handler in server.handlers.items()
    ]
    return reply({"steps": listed})


@steps.get("/state")
async def show_state(service: Running) -> Response:
    """The state of each step agent of this service, by name."""
    return reply({agent: await server.state() for agent, server in service.steps.items()})


@steps.get("/memory/{agent}/{key}")
async def show_memory(agent: StepPath, key: Annotated[str, Path(max_length=128)], service: Running) -> Response:
    """One memory entry of a step agent."""
    server = service.steps.get(agent)
    if server is None:
        known = ", ".join(service.steps) or "none"
        raise NotFound("agent_unknown", f"agent {agent!r} is unknown; registered: {known}")
    return reply({"key": key, "value": await server.memory(key)})


def _server(service: Service, step: str) -> StepServer:
    """Raises: NotFound (`step_unknown`)."""
    for server in service.steps.values():
        if step in server.handlers:
            return server
    known = ", ".join(name for server in service.steps.values() for name in server.handlers) or "none"
    raise NotFound("step_unknown", f"step {step!r} is unknown at app {service.app_id}; known: {known}")
