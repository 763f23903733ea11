"""How each event changes a session. Pure: no clock, no random, no I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from perdure.conversation.message import Message, error_text
from perdure.conversation.transcript import NOT_RUN
from perdure.conversation.window import newest
from perdure.llm.usage import Usage
from perdure.run.control import Position
from perdure.run.event import Accepted, Closed, Event, Reserved, Settled, Steered
from perdure.sidecar.ports import ChatCall
from perdure.turn.events import AnswerMisfit, CallInvalid, ModelReplied, TurnFailed
from perdure.turn.state import Call, Said, SessionState, Trouble, Turn, Uncertain

FOLD_VERSION = "1"

UNCERTAIN_KEPT = 32
"""Calls of unknown outcome remembered in a session, newest first out of older ones."""

FAILED = "failed"
OUTCOME_UNKNOWN = "outcome_unknown"

CORRECTION = "correction"
"""Name of a user message that no user wrote: it tells the model why its answer did not fit."""


def fold(state: SessionState, event: Event, at: Position, *, limit: int | None) -> SessionState:
    """The session after `event`. When a turn ends, the newest whole exchanges up to `limit` messages are kept."""
    if isinstance(event, Closed):
        return _closed(state, event, limit)
    folder = _FOLDERS.get(type(event))
    return state if folder is None else folder(state, event, at)


def _accepted(state: SessionState, event: Accepted, at: Position) -> SessionState:
    session = str(event.payload.get("session", state.session))
    said = Said(at.n, str(event.payload.get("text", "")), at.at)
    if state.turn is not None:
        return replace(state, session=session, queued=(*state.queued, said))
    return _begin(replace(state, session=session) if session != state.session else state, said)


def _begin(state: SessionState, said: Said) -> SessionState:
    return replace(state, turn=Turn(said.run, due=said.run), messages=(*state.messages, _user(said)))


def _user(said: Said) -> Message:
    return Message("user", said.text, at=said.at, run=said.run)


def _replied(state: SessionState, event: ModelReplied, at: Position) -> SessionState:
    turn = state.turn
    if turn is None or turn.run != event.run or not turn.due:
        return state
    calls = _calls(event, at)
    used = Usage(1, event.input_tokens, event.output_tokens)
    turn = replace(
        turn,
        due=0,
        steps=turn.steps + 1,
        used={**turn.used, event.model: turn.used.get(event.model, Usage()) + used},
        calls=calls,
        steers=turn.steers[event.heard :],
        answer=None if calls else event.text,
    )
    heard = (_user(said) for said in state.turn.steers[: event.heard]) if state.turn else ()
    shown = tuple(ChatCall(call.id, call.name, _object(call.arguments)) for call in calls)
    reply = Message("assistant", event.text, shown, at=at.at, run=event.run)
    if turn.steers and not calls:
        return _due(state, turn, at, *heard, reply)
    return replace(state, turn=turn, messages=(*state.messages, *heard, reply))


def _calls(event: ModelReplied, at: Position) -> tuple[Call, ...]:
    """The calls with keys from (run, commit, index), and ids that are unique within the reply.

    Index 0 belongs to the model call that this commit may make due.
    """
    made: list[Call] = []
    taken: set[str] = set()
    for i, call in enumerate(event.calls, start=1):
        name = call.id if call.id and call.id not in taken else f"call-{event.run}-{at.n}-{i}"
        taken.add(name)
        made.append(Call(f"{event.run}.{at.n}.{i}", name, call.name, call.arguments))
    return tuple(made)


def _object(arguments: str) -> str:
    """Arguments that every provider takes back: what was no JSON object is shown within one.

    Read as a tool reads them: nested more deeply than 200 levels is no JSON, on whatever stack this is folded.
    """
    try:
        if isinstance(from_json(arguments or "{}"), dict):
            return arguments or "{}"
    except ValueError:
        pass
    return json.dumps({"not_an_object": arguments})


def _due(state: SessionState, turn: Turn, at: Position, *news: Message) -> SessionState:
    """After `news` a model call is needed, and what a user said meanwhile comes before it."""
    steers = (_user(said) for said in turn.steers)
    turn = replace(turn, due=at.n, calls=(), steers=(), answer=None)
    return replace(state, turn=turn, messages=(*state.messages, *news, *steers))


def _invalid(state: SessionState, event: CallInvalid, at: Position) -> SessionState:
    return _told(state, event.key, error_text(event.problem, event.text), at)


def _settled(state: SessionState, event: Settled, at: Position) -> SessionState:
    turn = state.turn
    call = _call(turn, event.key)
    if call is None or call.result is not None:
        return state
    if event.unknown and call.digest:
        state = _doubtful(state, call)
    elif not event.unknown:
        state = _certain(state, call.name, call.digest)
    return _told(state, event.key, _result(event), at)


def _result(event: Settled) -> str:
    if event.unknown:
        return error_text(OUTCOME_UNKNOWN, event.content)
    return event.content if event.ok else error_text(FAILED, event.content)


def _told(state: SessionState, key: str, text: str, at: Position) -> SessionState:
    """The call has its result; when it was the last one, the model is due."""
    turn = state.turn
    if turn is None or _call(turn, key) is None:
        return state
    calls = tuple(replace(call, result=text) if call.key == key else call for call in turn.calls)
    if any(call.result is None for call in calls):
        return replace(state, turn=replace(turn, calls=calls))
    return _due(state, turn, at, *(_tool(turn.run, call, call.result or "", at.at) for call in calls))


def _tool(run: int, call: Call, text: str, at: str) -> Message:
    return Message("tool", text, call_id=call.id, name=call.name, at=at, run=run)


def _call(turn: Turn | None, key: str) -> Call | None:
    return next((call for call in turn.calls if call.key == key), None) if turn is not None else None


def _doubtful(state: SessionState, call: Call) -> SessionState:
    doubt = Uncertain(call.name, call.digest)
    kept = tuple(each for each in state.uncertain if each != doubt)
    return replace(state, uncertain=(*kept, doubt)[-UNCERTAIN_KEPT:])


def _certain(state: SessionState, name: str, digest: str) -> SessionState:
    """A person has allowed the same call again and it has an outcome: no more need to ask."""
    if not digest or not state.uncertain:
        return state
    left = tuple(each for each in state.uncertain if each != Uncertain(name, digest))
    return replace(state, uncertain=left)


def _reserved(state: SessionState, event: Reserved, at: Position) -> SessionState:
    turn = state.turn
    if turn is None or _call(turn, event.key) is None:
        return state
    calls = tuple(replace(call, digest=event.digest) if call.key == event.key else call for call in turn.calls)
    return replace(state, turn=replace(turn, calls=calls))


def _steered(state: SessionState, event: Steered, at: Position) -> SessionState:
    turn = state.turn
    said = Said(event.run, event.text, at.at)
    if turn is not None and turn.run == event.run:
        return replace(state, turn=replace(turn, steers=(*turn.steers, said)))
    queued = tuple(
        replace(each, text=f"{each.text}\n\n{event.text}") if each.run == event.run else each for each in state.queued
    )
    return replace(state, queued=queued)


def _misfit(state: SessionState, event: AnswerMisfit, at: Position) -> SessionState:
    turn = state.turn
    if turn is None or turn.run != event.run:
        return state
    correction = Message("user", event.text, name=CORRECTION, at=at.at, run=event.run)
    return _due(state, turn, at, correction)


def _failed(state: SessionState, event: TurnFailed, at: Position) -> SessionState:
    turn = state.turn
    if turn is None or turn.run != event.run or turn.trouble is not None:
        return state
    return replace(state, turn=replace(turn, trouble=Trouble(event.code, event.message)))


def _closed(state: SessionState, event: Closed, limit: int | None) -> SessionState:
    turn = state.turn
    if turn is None or turn.run != event.run:
        return replace(state, queued=tuple(each for each in state.queued if each.run != event.run))
    if turn.calls or turn.steers:
        state = _left_over(state, turn, event)
    state = replace(state, turn=None, messages=newest(state.messages, limit))
    if not state.queued:
        return state
    following, *rest = state.queued
    return _begin(replace(state, queued=tuple(rest)), following)


def _left_over(state: SessionState, turn: Turn, event: Closed) -> SessionState:
    """Calls without a result get one that says why, so that the next turn finds a valid transcript."""
    told: list[Message] = []
    at = state.messages[-1].at if state.messages else ""
    for call in turn.calls:
        text = call.result
        if text is None and call.digest:
            state = _doubtful(state, call)
            text = error_text(OUTCOME_UNKNOWN, "the turn ended before the outcome of this call was known")
        elif text is None:
            text = error_text(NOT_RUN, f"the turn ended ({event.status}) before this call was run")
        told.append(_tool(turn.run, call, text, at))
    return replace(state, messages=(*state.messages, *told, *(_user(said) for said in turn.steers)))


_FOLDERS: dict[type, Callable[[SessionState, Any, Position], SessionState]] = {
    Accepted: _accepted,
    ModelReplied: _replied,
    CallInvalid: _invalid,
    Settled: _settled,
    Reserved: _reserved,
    Steered: _steered,
    AnswerMisfit: _misfit,
    TurnFailed: _failed,
}
