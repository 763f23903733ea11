"""A turn, and a whole session, as people and HTTP see them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic_core import to_jsonable_python

from perdure.errors import NotFound
from perdure.llm.structured import AnswerShape, Misfit
from perdure.log.subject import run_id
from perdure.run.control import Approval, Control, Position, RunInfo, fold_control
from perdure.run.event import Accepted, Closed, Event
from perdure.turn.fold import fold
from perdure.turn.state import SessionState, usage_json
from perdure.types import Json, JsonObject, SubjectId


def describe(state: SessionState, control: Control, run: int, shape: AnswerShape[Any] | None) -> JsonObject:
    """The turn: `session, status, answer, usage, steps` and, where there is such, `output, waiting_for, error`.

    `answer` is the text, of a turn that did not succeed what the model said last; `output` is the value of a
    structured answer.

    Raises: NotFound (code `turn_forgotten`) when the transcript at hand no longer reaches back to the turn.
    """
    info = control.run(run)
    if info is None:
        raise NotFound("run_unknown", f"turn {run} of session {state.session!r} is unknown; check the id")
    shown = _outline(state, info)
    shown["answer"] = _answer(state, info)
    if info.status == "done" and shape is not None and isinstance(shown["answer"], str):
        value = shape.parse(shown["answer"])
        if not isinstance(value, Misfit):
            shown["output"] = to_jsonable_python(value)
    asked = [_question(a) for a in control.approvals.values() if a.run == run and a.status == "asked"]
    if asked:
        shown["waiting_for"] = asked
    if "error" in info.result:
        shown["error"] = info.result["error"]
    return shown


def _outline(state: SessionState, info: RunInfo) -> JsonObject:
    turn = state.turn if state.turn is not None and state.turn.run == info.n else None
    usage = usage_json(turn.used if turn else {})
    return {
        "session": state.session,
        "status": "paused" if info.paused else info.status,
        "answer": None,
        "usage": info.result.get("usage", usage),
        "steps": info.result.get("steps", turn.steps if turn else 0),
    }


def _answer(state: SessionState, info: RunInfo) -> str | None:
    """The last words of the model in this turn. Nothing before a turn has ended: they may not be its answer."""
    if info.status not in ("done", "failed", "cancelled"):
        return None
    mine = [message for message in state.messages if message.run == info.n]
    if not mine and info.result.get("steps"):
        raise NotFound("turn_forgotten", f"turn {info.n} is no longer at hand; read it from the log")
    said = [message.text for message in mine if message.role == "assistant"]
    if info.status == "done":
        return said[-1] if said else None
    return next((text for text in reversed(said) if text), None)


def _question(approval: Approval) -> Json:
    question: JsonObject = {
        "kind": "approval",
        "call": approval.call,
        "tool": approval.name,
        "arguments": json.loads(approval.arguments) if approval.arguments else None,
        "digest": approval.digest,
        "until": approval.until or None,
        "why": approval.why,
    }
    return question


def session_json(
    subject: SubjectId, history: Iterable[tuple[Position, Event]], shape: AnswerShape[Any] | None = None
) -> JsonObject:
    """All of a session from its log's events: `session`, its `turns` (as `describe`, with `id`) and its `messages`."""
    state, control, runs = SessionState(), Control(), dict[int, RunInfo]()
    for at, event in history:
        control = fold_control(control, event, at)
        state = fold(state, event, at, limit=None)
        if isinstance(event, Accepted):
            runs[at.n] = control.open[at.n]
        elif isinstance(event, Closed) and event.run in control.closed:
            runs[event.run] = control.closed[event.run]
    runs |= control.open
    turns: list[Json] = [
        {"id": run_id(subject, n), **describe(state, _with(control, info), n, shape)} for n, info in runs.items()
    ]
    return {"session": state.session, "turns": turns, "messages": [message.for_people() for message in state.messages]}


def _with(control: Control, info: RunInfo) -> Control:
    """`control`, knowing a run that closed too long ago for it."""
    if control.run(info.n) is not None:
        return control
    return Control(closed={info.n: info})
