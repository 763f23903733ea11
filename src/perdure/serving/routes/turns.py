"""A turn: ask, look, follow, give orders, decide about a call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from perdure.errors import Invalid
from perdure.observability.context import log_context
from perdure.observability.tracing import current_trace_parent
from perdure.serving.access import Caller, Running
from perdure.serving.reply import reply
from perdure.serving.requests import AskBody, CancelBody, DecisionBody, SignalBody, SteerBody
from perdure.serving.service import Service
from perdure.serving.sse import event_stream, position
from perdure.serving.turns import Question, ended
from perdure.types import JsonObject, RunId

router = APIRouter(prefix="/turns", tags=["turns"])

TurnId = Annotated[str, Path(description="As given when the turn was accepted.", max_length=64)]


class Turn(BaseModel):
    """A turn as it is now."""

    model_config = ConfigDict(extra="allow")

    id: str
    session: str
    status: str
    answer: str | None = None
    usage: dict[str, int] = {}
    steps: int = 0
    waiting_for: list[dict[str, object]] | None = None
    error: dict[str, str] | None = None


SHOWN: dict[int | str, dict[str, object]] = {200: {"model": Turn}}
ACCEPTED: dict[int | str, dict[str, object]] = {202: {"model": Turn, "description": "Accepted; see `Location`."}}


@router.post("", responses={**SHOWN, **ACCEPTED})
async def ask(
    body: AskBody,
    service: Running,
    caller: Caller,
    idempotency_key: Annotated[str | None, Header(max_length=256)] = None,
) -> Response:
    """Begin a turn, or join the one that has this key. 200 with the finished turn, else 202 with `Location`."""
    if idempotency_key and body.key and idempotency_key != body.key:
        raise Invalid(
            "key_ambiguous", "`key` and the header Idempotency-Key differ; send one of them, or the same twice"
        )
    question = Question(
        text=body.text,
        agent=body.agent or "",
        session=body.session or "",
        key=body.key or idempotency_key or "",
        by=caller,
        trace=current_trace_parent(),
    )
    accepted = await service.turns.ask(question)
    wait_s = service.settings.http.wait_s if body.wait_s is None else body.wait_s
    with log_context(run=accepted.run_id, session=question.session):
        shown = await service.turns.wait(accepted.run_id, wait_s, service.draining)
    if ended(shown):
        return reply(shown)
    return reply(shown, 202, Location=f"/turns/{accepted.run_id}")


@router.get("/{turn}", responses=SHOWN)
async def show(turn: TurnId, service: Running) -> Response:
    """The turn as it is now."""
    return reply(await service.turns.show(RunId(turn)))


@router.get("/{turn}/events", response_class=StreamingResponse)
async def follow(
    turn: TurnId, service: Running, last_event_id: Annotated[str | None, Header(max_length=40)] = None
) -> Response:
    """Everything that happened in the turn and happens until it ends, as server-sent events; ids are `n.i`."""
    after = position(last_event_id)
    await service.turns.show(RunId(turn))
    events = service.runner.events(RunId(turn), after)
    return event_stream(events, keep_alive_s=service.settings.http.keep_alive_s, stop=service.draining)


@router.post("/{turn}/pause", responses=SHOWN)
async def pause(turn: TurnId, service: Running, caller: Caller) -> Response:
    """No new action starts until the turn is resumed."""
    await service.runner.pause(await _turn(service, turn), caller)
    return await show(turn, service)


@router.post("/{turn}/resume", responses=SHOWN)
async def resume(turn: TurnId, service: Running, caller: Caller) -> Response:
    """End a pause."""
    await service.runner.resume(await _turn(service, turn), caller)
    return await show(turn, service)


@router.post("/{turn}/cancel", responses=SHOWN)
async def cancel(turn: TurnId, service: Running, caller: Caller, body: CancelBody | None = None) -> Response:
    """End the turn as cancelled once its actions have stopped."""
    await service.runner.cancel(await _turn(service, turn), body.reason if body else "", caller)
    return await show(turn, service)


@router.post("/{turn}/signal", responses=SHOWN)
async def signal(turn: TurnId, body: SignalBody, service: Running, caller: Caller) -> Response:
    """Hand the turn a named message."""
    payload: JsonObject = dict(body.payload)
    await service.runner.signal(await _turn(service, turn), body.name, payload, body.id, caller)
    return await show(turn, service)


@router.post("/{turn}/steer", responses=SHOWN)
async def steer(turn: TurnId, body: SteerBody, service: Running, caller: Caller) -> Response:
    """Say something that reaches the model before its next call."""
    await service.runner.steer(await _turn(service, turn), body.text, caller)
    return await show(turn, service)


@router.post("/{turn}/approvals/{call}", responses=SHOWN)
async def decide(
    turn: TurnId, call: Annotated[str, Path(max_length=64)], body: DecisionBody, service: Running, caller: Caller
) -> Response:
    """Approve or deny one call that waits for a person; `waiting_for` of the turn shows what is asked."""
    run = await _turn(service, turn)
    if body.decision == "approve":
        await service.runner.approve(run, call, body.digest, caller)
    else:
        await service.runner.deny(run, call, caller, body.reason)
    return await show(turn, service)


async def _turn(service: Service, turn: str) -> RunId:
    """The id of a turn that exists. Raises: Invalid (`run_id_malformed`), NotFound (`run_unknown`)."""
    await service.turns.show(RunId(turn))
    return RunId(turn)
