"""Laws of `plan`, over random steps, policies and orders of arrival: takeovers, outcomes, people, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.effect import Doubt
from perdure.run.control import Control, Position
from perdure.run.event import (
    ApprovalAsked,
    Approved,
    CancelAsked,
    Claimed,
    Denied,
    Doubted,
    Event,
    NotHappened,
    PauseAsked,
    Reserved,
    ResumeAsked,
    Settled,
    TimerFired,
    Unreconciled,
)
from perdure.run.plan import Mode, Plan, Start, View, fold_view, plan
from toy import Toy, World, begin

AT = "2026-01-01T00:00:00.000000Z"
UNTIL = "2026-01-02T00:00:00.000000Z"

KINDS = st.builds(
    lambda doubt, reconcile, approval: Toy(World(), doubt=doubt, reconcile=reconcile, approval_s=approval),
    st.sampled_from(list(Doubt)),
    st.booleans(),
    st.sampled_from([None, 60.0]),
)
STEPS = st.lists(st.sampled_from(["read:a", "idempotent:b", "once:c", "once:d"]), min_size=1, max_size=4)
MOVES = st.lists(
    st.sampled_from(
        [
            "finish",
            "finish",
            "cut",
            "takeover",
            "approve",
            "wrong digest",
            "deny",
            "expire",
            "pause",
            "resume",
            "cancel",
        ]
    ),
    max_size=20,
)


@dataclass
class Play:
    """One subject and its drivers, without store or tasks. `check` holds for every plan that is made."""

    kind: Toy
    view: View[Any]
    epoch: int = 0
    log: list[tuple[Position, Event]] = field(default_factory=list)
    running: dict[str, Start] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)

    def append(self, facts: Sequence[Event]) -> None:
        """What the driver does with news, or with a claim."""
        at = Position(self.view.n + 1, 0, AT, self.epoch, f"driver-{self.epoch}")
        made = plan(
            self.kind, self.view, facts, at=at, running=self.running.keys(), started=self.started,
            expires=lambda _: UNTIL, patience_s=0,
        )  # fmt: skip
        self.check(made, at)
        if made.events:
            assert made.view == fold_view(self.kind, self.view, made.events, at)
            self.view = fold_view(self.kind, self.view, made.events, at)
            self.log += [(Position(at.n, i, AT, at.epoch, at.driver), e) for i, e in enumerate(made.events)]
        for key in [key for key in self.running if key not in made.wanted]:
            self.cut(key)
        self.running |= {start.action.key: start for start in made.start}
        self.started |= {start.action.key for start in made.start if start.mode is Mode.DO}

    def check(self, made: Plan, at: Position) -> None:
        before = [event for _, event in self.log]
        settled = {event.key for event in (*before, *made.events) if isinstance(event, Settled)}
        paused = self.view.control.current is not None and self.view.control.current.paused
        told = [event for event in made.events if isinstance(event, ResumeAsked | CancelAsked)]
        assert not (made.start and paused and not told), "nothing starts in a paused run"
        for start in made.start:
            action = start.action
            assert action.key not in settled, "nothing settled starts again"
            assert action.key not in self.running
            if start.mode is Mode.DO and action.effect != "read":
                assert self.reserved_by(action.key, at, made), "no effect without a reservation by this very driver"
        keys = [start.action.key for start in made.start]
        assert len(keys) == len(set(keys))
        reserved = [event.key for event in made.events if isinstance(event, Reserved)]
        assert len(reserved) == len(set(reserved)), "one commit reserves a key once"

    def reserved_by(self, key: str, at: Position, made: Plan) -> bool:
        last: tuple[int, str] | None = None
        for position, event in [*self.log, *((at, event) for event in made.events)]:
            if isinstance(event, Reserved) and event.key == key:
                last = (position.epoch, position.driver)
            if isinstance(event, Doubted | NotHappened | Settled) and event.key == key:
                last = None
        return last == (at.epoch, at.driver)

    def cut(self, key: str) -> None:
        start = self.running.pop(key)
        if start.mode is Mode.DO and start.action.effect == "once":
            self.append([Doubted(key, "cut")])

    def takeover(self) -> None:
        self.epoch += 1
        self.running.clear()
        self.started.clear()
        self.append([Claimed("slot")])

    def finish(self) -> None:
        if not self.running:
            return
        key, start = self.running.popitem()
        if start.mode is Mode.RECONCILE:
            said = len(self.log) % 3
            outcome = [Settled(key, "did"), NotHappened(key), Unreconciled(key)][said]
            if isinstance(outcome, NotHappened):
                self.started.discard(key)
            self.append([outcome])
        else:
            self.append([Settled(key, "did")])

    def play(self, move: str) -> None:
        current = self.view.control.current
        if current is None:
            return
        if move == "takeover":
            self.takeover()
        elif move == "finish":
            self.finish()
        elif move == "cut" and self.running:
            key = next(iter(self.running))
            self.cut(key)
            if self.view.control.driver and key not in self.running:
                self.append([])
        else:
            self.tell(self.told(move, current.n))

    def tell(self, facts: Sequence[Event]) -> None:
        """Somebody's word: the driver hears it, or a new one begins with it."""
        if not facts:
            return
        if not self.view.control.driver:
            self.epoch += 1
            self.running.clear()
            self.started.clear()
            facts = [*facts, Claimed("slot")]
        self.append(facts)

    def told(self, move: str, run: int) -> list[Event]:
        asked = next((a for a in self.view.control.approvals.values() if a.status == "asked"), None)
        if move == "pause":
            return [PauseAsked(run)]
        if move == "resume":
            return [ResumeAsked(run)]
        if move == "cancel":
            return [CancelAsked(run, "enough")]
        if asked is None:
            return []
        answers: dict[str, list[Event]] = {
            "approve": [Approved(asked.call, asked.digest, "ann")],
            "wrong digest": [Approved(asked.call, "another", "ann")],
            "deny": [Denied(asked.call, "ann")],
            "expire": [TimerFired(f"approval:{asked.call}"), Approved(asked.call, asked.digest, "too late")],
        }
        return answers.get(move, [])


def played(kind: Toy, steps: list[str], moves: list[str]) -> Play:
    play = Play(kind, View(0, kind.initial(), Control()))
    play.epoch = 1
    play.append([begin(steps), Claimed("slot")])
    for move in moves:
        play.play(move)
    return play


@settings(deadline=None, max_examples=100, derandomize=True)
@given(KINDS, STEPS, MOVES)
def test_no_effect_starts_unreserved_settled_or_twice(kind: Toy, steps: list[str], moves: list[str]) -> None:
    """Whatever happens in whatever order; checked on every single plan."""
    played(kind, steps, moves)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(KINDS, STEPS, MOVES)
def test_a_once_effect_needs_leave_for_every_further_attempt(kind: Toy, steps: list[str], moves: list[str]) -> None:
    """Reserved again only after the target denied it, a person allowed it, the author did, or it never started."""
    play = played(kind, steps, moves)
    started: dict[str, tuple[int, str]] = {}
    leave: set[str] = set()
    for at, event in play.log:
        if isinstance(event, NotHappened | Approved):
            leave.add(event.key if isinstance(event, NotHappened) else event.call)
        if isinstance(event, Reserved) and event.effect == "once":
            if event.key in started and kind._doubt is not Doubt.RETRY:
                never_began = started[event.key] == (at.epoch, at.driver) and event.key not in play.started
                assert event.key in leave or never_began
                leave.discard(event.key)
            started[event.key] = (at.epoch, at.driver)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(KINDS, STEPS, MOVES)
def test_an_approval_is_bound_to_its_arguments_and_consumed_once(kind: Toy, steps: list[str], moves: list[str]) -> None:
    """Each reservation that needs one has an approval of its own digest before it, given in time by log order."""
    if kind._approval_s is None:
        return
    play = played(kind, steps, moves)
    valid: dict[str, str] = {}
    open_questions: dict[str, str] = {}
    for _, event in play.log:
        if isinstance(event, ApprovalAsked):
            open_questions[event.call] = event.digest
        if isinstance(event, TimerFired):
            open_questions.pop(event.name.removeprefix("approval:"), None)
        if isinstance(event, Denied):
            open_questions.pop(event.call, None)
        if isinstance(event, Approved) and open_questions.get(event.call) == event.digest:
            valid[event.call] = open_questions.pop(event.call)
        if isinstance(event, Reserved) and event.effect == "once" and event.attempt == 1 and event.key in valid:
            assert valid.pop(event.key) == event.digest
        elif isinstance(event, Reserved) and event.effect == "once" and event.attempt == 1:
            raise AssertionError(f"{event.key} was reserved without an approval")


@settings(deadline=None, max_examples=100, derandomize=True)
@given(KINDS, STEPS, MOVES)
def test_after_any_history_a_takeover_leads_to_an_end_or_a_question(
    kind: Toy, steps: list[str], moves: list[str]
) -> None:
    """Nothing hangs: what is open after a new driver did all it could waits for a person, or is paused."""
    play = played(kind, steps, moves)
    if play.view.control.current is None:
        return
    play.takeover()
    for _ in range(50):
        if not play.running:
            break
        play.finish()
    current = play.view.control.current
    asked = [a for a in play.view.control.approvals.values() if a.status == "asked"]
    assert current is None or current.paused or asked
