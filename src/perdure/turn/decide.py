"""What a session does next. Pure: the same state and the same agent give the same decision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from perdure.conversation.message import Message
from perdure.effect import Doubt, Effect
from perdure.llm.structured import Misfit
from perdure.run.control import Control, RunInfo
from perdure.run.event import Closed, Event, Settled
from perdure.run.kind import Act, Action, Done, Verdict
from perdure.tools.arguments import ParsedCall, ToolProblem
from perdure.tools.tool import Tool
from perdure.turn.events import AnswerMisfit, CallInvalid
from perdure.turn.rules import TurnRules
from perdure.turn.state import Call, SessionState, Turn, Uncertain, total, usage_json
from perdure.types import JsonObject

MODEL = "model"
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Status: TypeAlias = Literal["done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAction(Action):
    """Ask the model about this transcript. `heard` counts the steering texts at its end."""

    session: str
    messages: tuple[Message, ...]
    heard: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolAction(Action):
    """Make this call."""

    session: str
    call_id: str
    parsed: ParsedCall


def decide(rules: TurnRules, state: SessionState, control: Control) -> Verdict:
    """What the turn in progress needs: a decision recorded, tools, the model, or nothing."""
    turn = state.turn
    if turn is None:
        return Done()
    unbegun = [info for info in control.open.values() if info.cancel is not None and info.n != turn.run]
    if unbegun:
        return Act(record=tuple(_cancelled(Turn(info.n, due=0), info) for info in unbegun))
    info = control.run(turn.run)
    if info is not None and info.cancel is not None:
        return Act(record=(_cancelled(turn, info),))
    if turn.trouble is not None:
        return _ending(rules, state, control, turn)
    over = _limit(rules, turn)
    if over is not None and (turn.due or turn.calls):
        return _over(rules, state, control, turn, over)
    if turn.calls:
        return _calling(rules, state, control, turn, _waiting(turn))
    if turn.answer is not None:
        return _answered(rules, turn, turn.answer)
    return Act(actions=(_asking(state, turn),))


def _closed(turn: Turn, status: Status, result: JsonObject) -> Closed:
    return Closed(turn.run, status, {**result, "usage": usage_json(turn.used), "steps": turn.steps})


def _cancelled(turn: Turn, info: RunInfo) -> Closed:
    return _closed(turn, "cancelled", {"error": {"code": "cancelled", "message": info.cancel or "cancelled"}})


def _failing(turn: Turn, code: str, message: str) -> Act:
    return Act(record=(_closed(turn, "failed", {"error": {"code": code, "message": message}}),))


def _ending(rules: TurnRules, state: SessionState, control: Control, turn: Turn) -> Act:
    """A turn that cannot go on starts nothing more, but lets effects that may have begun come to their end."""
    begun = tuple(call for call in _waiting(turn) if call.key in control.effects)
    if begun:
        return _calling(rules, state, control, turn, begun)
    trouble = turn.trouble
    return _failing(turn, trouble.code if trouble else "internal", trouble.message if trouble else "")


def _limit(rules: TurnRules, turn: Turn) -> tuple[str, str] | None:
    if turn.steps >= rules.max_steps:
        return "step_limit", f"the turn has used its {rules.max_steps} model calls without coming to an answer"
    if not turn.steps:
        return None
    reached = rules.limits.reached(total(turn.used), rules.prices.cost(turn.used))
    if reached is not None:
        return "cost_limit", f"the turn has reached its limit: {reached}"
    return None


def _over(rules: TurnRules, state: SessionState, control: Control, turn: Turn, over: tuple[str, str]) -> Act:
    """No model will see the results, so no further call is begun."""
    begun = tuple(call for call in _waiting(turn) if call.key in control.effects)
    return _calling(rules, state, control, turn, begun) if begun else _failing(turn, *over)


def _waiting(turn: Turn) -> tuple[Call, ...]:
    return tuple(call for call in turn.calls if call.result is None)


def _calling(rules: TurnRules, state: SessionState, control: Control, turn: Turn, calls: Sequence[Call]) -> Act:
    parsed = [(call, rules.toolbox.validate(call.name, call.arguments)) for call in calls]
    refused = tuple(_refused(call, said, control) for call, said in parsed if isinstance(said, ToolProblem))
    if refused:
        return Act(record=refused)
    return Act(
        actions=tuple(_action(rules, state, turn, call, said) for call, said in parsed if isinstance(said, ParsedCall))
    )


def _refused(call: Call, problem: ToolProblem, control: Control) -> Event:
    if call.key not in control.effects:
        return CallInvalid(call.key, problem.kind.value, problem.text)
    # It was begun by an earlier release of the agent, which had such a tool.
    return Settled(
        call.key, f"whether this call happened is unknown, and it cannot be made again: {problem.text}", False, True
    )


def _action(rules: TurnRules, state: SessionState, turn: Turn, call: Call, parsed: ParsedCall) -> ToolAction:
    made = rules.toolbox[call.name]
    again = Uncertain(call.name, parsed.digest) in state.uncertain
    asks = again or _needs_approval(made, parsed)
    return ToolAction(
        key=call.key,
        run=turn.run,
        name=call.name,
        effect=made.effect,
        doubt=Doubt.ASK if again and made.doubt is Doubt.TELL else made.doubt,
        digest=parsed.digest,
        arguments=_COMPACT(parsed.arguments),
        approval_s=rules.approval_s if asks else None,
        reconcilable=made.reconcile is not None,
        limit_s=made.timeout_s,
        session=state.session,
        call_id=call.id,
        parsed=parsed,
    )


def _needs_approval(made: Tool[Any, Any], parsed: ParsedCall) -> bool:
    try:
        return made.needs_approval(parsed.values)
    except Exception:  # noqa: BLE001 - an author's rule may raise anything; then a person decides, which is safe
        return True


def _answered(rules: TurnRules, turn: Turn, answer: str) -> Act:
    shape = rules.shape
    checked = shape.parse(answer) if shape is not None else None
    if isinstance(checked, Misfit):
        return Act(record=(AnswerMisfit(turn.run, checked.text),))
    return Act(record=(_closed(turn, "done", {}),))


def _asking(state: SessionState, turn: Turn) -> ModelAction:
    steers = tuple(Message("user", said.text, at=said.at, run=said.run) for said in turn.steers)
    return ModelAction(
        key=f"{turn.run}.{turn.due}.0",
        run=turn.run,
        name=MODEL,
        effect=Effect.READ,
        session=state.session,
        messages=(*state.messages, *steers),
        heard=len(steers),
    )
