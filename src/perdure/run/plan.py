"""From facts to the next commit and the next actions. Pure: this is where effects become safe.

The kind says what it wants done. This module adds what the log must say before it may be done:
reservations, doubts, questions to people, waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

from perdure.effect import Doubt, Effect
from perdure.errors import Broken
from perdure.run.control import Approval, Control, Entry, Position, fold_control
from perdure.run.event import ApprovalAsked, Doubted, Event, Reserved, Settled, Waiting
from perdure.run.kind import Act, Action, Done, Kind, Verdict, Wait

S = TypeVar("S")

RECORDS_AT_ONCE = 1000
"""A kind that records more decisions than this without asking for an action is in a loop."""


@dataclass(frozen=True, slots=True)
class View(Generic[S]):
    """A subject's state at commit `n`."""

    n: int
    state: S
    control: Control


class Mode(StrEnum):
    """How an action is to be started."""

    DO = "do"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class Start:
    """Start this action now, as attempt `attempt`; `waited` asks to let an older owner's start-by time pass."""

    action: Action
    mode: Mode
    attempt: int
    after_other: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to append, then start; `wanted` are all keys that may keep running, `view` is the fold after `events`."""

    events: tuple[Event, ...] = ()
    start: tuple[Start, ...] = ()
    wanted: frozenset[str] = frozenset()
    timers: tuple[tuple[str, str], ...] = ()
    wait: Waiting | None = None
    done: bool = False
    view: View[Any] | None = field(default=None, compare=False)


def fold_view(kind: Kind[S], view: View[S], events: Sequence[Event], at: Position) -> View[S]:
    """The view after `events`, all in one commit at `at.n`."""
    state, control = view.state, view.control
    for i, event in enumerate(events, start=at.i):
        position = Position(at.n, i, at.at, at.epoch, at.driver)
        control = fold_control(control, event, position)
        state = kind.fold(state, event, position)
    return View(at.n, state, control)


@dataclass(slots=True)
class _Draft(Generic[S]):
    """A commit in the making: every added event is folded at once, so decisions see it."""

    kind: Kind[S]
    view: View[S]
    at: Position
    expires: Callable[[float], str]
    running: AbstractSet[str]
    started: AbstractSet[str]
    patience_s: float
    events: list[Event] = field(default_factory=list)
    starts: dict[str, Start] = field(default_factory=dict)

    def add(self, *events: Event) -> None:
        start = Position(self.at.n, len(self.events), self.at.at, self.at.epoch, self.at.driver)
        self.view = fold_view(self.kind, self.view, events, start)
        self.events.extend(events)


def plan(
    kind: Kind[S],
    view: View[S],
    facts: Sequence[Event],
    *,
    at: Position,
    running: AbstractSet[str],
    started: AbstractSet[str],
    expires: Callable[[float], str],
    patience_s: float,
) -> Plan:
    """What follows from `facts` for the driver named in `at`.

    `running` are the keys of actions in progress in this driver, `started` those that it ever started;
    `expires(seconds)` gives the RFC 3339 moment that many seconds from now; a wait for timers that ends
    within `patience_s` seconds is not recorded: the driver naps instead.
    """
    draft = _Draft(kind, view, at, expires, running, started, patience_s)
    draft.add(*facts)
    stopping = _stopping(draft)
    if stopping is not None:
        return stopping
    for _ in range(RECORDS_AT_ONCE):
        verdict = kind.decide(draft.view.state, draft.view.control)
        if isinstance(verdict, Act) and verdict.record:
            draft.add(*verdict.record)
            continue
        resolved = _resolve(draft, verdict)
        if resolved is not None:
            return resolved
    raise Broken("decide_loop", f"kind {kind.name!r} records decisions for ever; this is a defect in its decide()")


def _stopping(draft: _Draft[Any]) -> Plan | None:
    """While a cancelled run's actions still run: let them stop first, their outcome is a fact to record."""
    current = draft.view.control.current
    if current is None or current.cancel is None:
        return None
    if not _of_run(draft.running, current.n):
        return None
    wanted = frozenset(draft.running) - _of_run(draft.running, current.n)
    return Plan(events=tuple(draft.events), wanted=wanted, view=draft.view)


def _of_run(keys: AbstractSet[str], run: int) -> frozenset[str]:
    return frozenset(key for key in keys if key.startswith(f"{run}."))


def _resolve(draft: _Draft[Any], verdict: Verdict) -> Plan | None:
    """The finished plan, or None when an outcome was recorded that the kind must see first."""
    if isinstance(verdict, Done):
        return Plan(events=tuple(draft.events), done=True, view=draft.view)
    if isinstance(verdict, Wait):
        return _waiting(draft, verdict.run, verdict.on, verdict.timers)
    before = len(draft.events)
    actions = verdict.actions
    steps = [_step(draft, action) for action in actions]
    if any(isinstance(event, Settled) for event in draft.events[before:]):
        return None
    starts = tuple(step for step in steps if step is not None)
    blocked = _blocked(draft, actions)
    timers = verdict.timers + tuple((f"approval:{a.call}", a.until) for a in blocked if a.until)
    wanted = frozenset(action.key for action in actions)
    if starts or (wanted & draft.running):
        return Plan(tuple(draft.events), starts, wanted, timers, view=draft.view)
    current = draft.view.control.current
    if current is not None and current.paused:
        return _waiting(draft, current.n, ("resume",), timers)
    on = tuple(f"approval:{a.call}" for a in blocked)
    return _waiting(draft, current.n if current else 0, on, timers)


def _blocked(draft: _Draft[Any], actions: Sequence[Action]) -> list[Approval]:
    approvals = draft.view.control.approvals
    return [a for key in (action.key for action in actions) if (a := approvals.get(key)) and a.status == "asked"]


def _waiting(draft: _Draft[Any], run: int, on: tuple[str, ...], timers: tuple[tuple[str, str], ...]) -> Plan:
    until = min((moment for _, moment in timers), default="")
    if until and not on and until <= draft.expires(draft.patience_s):
        return Plan(events=tuple(draft.events), timers=timers, view=draft.view)
    if draft.running:  # nobody wants them any more; what came of them is recorded before the subject is let go
        return Plan(events=tuple(draft.events), timers=timers, view=draft.view)
    wait = Waiting(run=run, on=on, until=until, timers=timers)
    if draft.view.control.waiting != wait:
        draft.add(wait)
    return Plan(events=tuple(draft.events), wait=wait, timers=timers, view=draft.view)


def _step(draft: _Draft[Any], action: Action) -> Start | None:
    """Record what must be known before `action` may start; None when it runs, waits or has just been settled."""
    if action.key in draft.running:
        return None
    if action.key not in draft.starts:
        start = _start(draft, action)
        if start is None:
            return None
        draft.starts[action.key] = start  # asked for again after another's outcome, it is not reserved again
    return draft.starts[action.key]


def _start(draft: _Draft[Any], action: Action) -> Start | None:
    control = draft.view.control
    current = control.run(action.run)
    if current is not None and current.paused:
        return None
    entry = control.effects.get(action.key)
    if entry is not None:
        return _again(draft, action, entry)
    if action.approval_s is not None and not _allowed(draft, action, "tool", action.approval_s):
        return None
    return _reserve(draft, action, 1)


def _reserve(draft: _Draft[Any], action: Action, attempt: int, *, after_other: bool = False) -> Start:
    if action.effect is not Effect.READ:
        draft.add(Reserved(action.key, action.name, action.digest, attempt, action.effect.value))
    return Start(action, Mode.DO, attempt, after_other)


def _again(draft: _Draft[Any], action: Action, entry: Entry) -> Start | None:
    """An effect that was reserved before and is not running here."""
    mine = entry.driver == draft.at.driver and entry.epoch == draft.at.epoch
    if mine and entry.effect != Effect.ONCE.value:
        return Start(action, Mode.DO, entry.attempt)  # put off; each try would be another commit
    if entry.effect != Effect.ONCE.value or (action.key not in draft.started and mine):
        return _reserve(draft, action, entry.attempt + 1)
    if not entry.doubt:
        draft.add(Doubted(action.key, "the driver was lost before the outcome was recorded"))
    if action.reconcilable and not entry.unreconciled:
        return Start(action, Mode.RECONCILE, entry.attempt, after_other=not mine)
    return _by_policy(draft, action, entry, after_other=not mine)


def _by_policy(draft: _Draft[Any], action: Action, entry: Entry, *, after_other: bool) -> Start | None:
    if action.doubt is Doubt.RETRY:
        return _reserve(draft, action, entry.attempt + 1, after_other=after_other)
    if action.doubt is Doubt.ASK:
        if _allowed(draft, action, "doubt", action.approval_s or 0):
            return _reserve(draft, action, entry.attempt + 1, after_other=after_other)
        return None
    draft.add(Settled(action.key, "the outcome of this call is unknown: it may or may not have happened", False, True))
    return None


def _allowed(draft: _Draft[Any], action: Action, why: str, seconds: float) -> bool:
    """Whether a person said yes to exactly these arguments; asks if nobody was asked about this yet."""
    approval = draft.view.control.approvals.get(action.key)
    if approval is None or approval.status == "consumed":
        until = draft.expires(seconds) if seconds else ""
        draft.add(
            ApprovalAsked(action.run, action.key, action.name, action.digest, action.arguments, until, why),
        )
        return False
    if approval.status == "approved" and approval.digest == action.digest:
        return True
    if approval.status in ("denied", "expired", "approved"):
        draft.add(_refusal(action, approval))
    return False


def _refusal(action: Action, approval: Approval) -> Settled:
    """The typed result of a call that no person allowed."""
    unknown = approval.why == "doubt"
    not_run = "it was not run again; whether it happened before is unknown" if unknown else "it was not run"
    if approval.status == "expired":
        text = f"nobody approved this call in time; {not_run}"
    elif approval.status == "approved":
        text = f"the approval was for other arguments; {not_run}"
    else:
        text = f"the call was denied by {approval.by or 'a person'}" + (
            f": {approval.reason}" if approval.reason else ""
        )
    return Settled(action.key, text, False, unknown)
