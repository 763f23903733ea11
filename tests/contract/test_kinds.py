"""What every kind of run owes the runner: one suite over all kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from perdure.agent.agent import DurableAgent
from perdure.clock import SystemClock, SystemIds
from perdure.llm.scripted import ScriptedModel
from perdure.pipeline.accept import Order
from perdure.pipeline.accept import accept as accept_order
from perdure.pipeline.kind import PipelineKind
from perdure.pipeline.pipeline import Pipeline
from perdure.pipeline.server import StepServer
from perdure.run.control import Control, Position
from perdure.run.event import CancelAsked, Claimed, Closed, Event, Settled
from perdure.run.kind import Act, Action, Doing, Done, Kind
from perdure.run.plan import Start, View, fold_view, plan
from perdure.sidecar.memory.invoker import MemoryInvoker
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.tools import tool
from perdure.turn.accept import Ask, accept
from perdure.turn.kind import TurnKind
from toy import Toy, World, begin
from turn_loop import asks, call

AT = "2026-01-01T00:00:00.000000Z"
KEY = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Case:
    """A kind, and what begins a run of it that ends well."""

    kind: Kind[Any]
    begin: Callable[[View[Any]], Sequence[Event] | int]


def toy() -> Case:
    return Case(Toy(World()), lambda view: [begin(["read:a", "idempotent:b", "once:c"], "k")])


def turn() -> Case:
    @tool
    async def pay() -> str:
        return "paid"

    @tool(effect="read")
    async def look() -> str:
        return "seen"

    agent = DurableAgent("a", tools=[pay, look])
    model = ScriptedModel([asks(call("pay"), call("look")), "done"])
    kind = TurnKind(agent, model, clock=SystemClock())
    return Case(kind, lambda view: accept(Ask(kind.name, "go", "s", "k"), "queue", view))


def pipeline() -> Case:
    declared = Pipeline("p")

    @declared.step(effect="read")
    async def first(message: Any, context: Any) -> dict[str, int]:
        return {"x": 1}

    @declared.step(depends_on=["first"], max_retries=0)
    async def second(message: Any, context: Any) -> dict[str, int]:
        return {"y": 1}

    here = StepServer("p", declared.handlers, MemoryStateStore(), clock=SystemClock(), slot="a", life=SystemIds().new())
    kind = PipelineKind(declared, here=here, invoker=MemoryInvoker())
    return Case(kind, lambda view: accept_order(Order(kind.name, kind.graph, {"x": 1}, "k"), view))


@pytest.fixture(params=[toy, turn, pipeline])
def case(request: pytest.FixtureRequest) -> Case:
    made: Case = request.param()
    return made


@dataclass
class Life:
    """One run from its acceptance on, driven without store and time."""

    case: Case
    view: View[Any] = field(init=False)
    log: list[tuple[Position, tuple[Event, ...]]] = field(default_factory=list)
    running: dict[str, Start] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.view = View(0, self.case.kind.initial(), Control())
        events = self.case.begin(self.view)
        assert not isinstance(events, int)
        self.append([*events, Claimed("slot")])

    def append(self, facts: Sequence[Event]) -> None:
        kind = self.case.kind
        at = Position(self.view.n + 1, 0, AT, 1, "driver")
        made = plan(
            kind, self.view, facts, at=at, running=self.running.keys(), started=set(), expires=lambda _: AT,
            patience_s=0,
        )  # fmt: skip
        decoded = kind.codec.decode(orjson.loads(orjson.dumps(made.events)))
        assert decoded == made.events, "what is written can be read again"
        self.view = fold_view(kind, self.view, decoded, at)
        self.log.append((at, decoded))
        self.running |= {start.action.key: start for start in made.start}

    async def step(self) -> Action:
        key, start = next(iter(self.running.items()))
        doing = Doing(f"subject.{key}", f"subject-{start.action.run}", start.attempt, 1)
        events = await self.case.kind.do(start.action, doing)
        del self.running[key]
        self.append(list(events))
        return start.action

    async def live(self) -> list[Action]:
        done = []
        while self.running:
            done.append(await self.step())
        return done

    @property
    def closed(self) -> list[Closed]:
        return [event for _, events in self.log for event in events if isinstance(event, Closed)]


async def test_a_run_ends_once_and_nothing_is_left_to_do(case: Case) -> None:
    """Accepted, driven, closed as done; then the kind has nothing to do."""
    life = Life(case)
    await life.live()
    assert [(event.run, event.status) for event in life.closed] == [(1, "done")]
    assert case.kind.decide(life.view.state, life.view.control) == Done()
    assert case.kind.decide(case.kind.initial(), Control()) == Done()


async def test_actions_have_keys_of_their_run_commit_and_index(case: Case) -> None:
    """So they are the same after any crash, and never given twice."""
    life = Life(case)
    keys = [action.key for action in await life.live()]
    assert len(set(keys)) == len(keys)
    assert all(KEY.fullmatch(key) and key.startswith("1.") for key in keys)


async def test_any_prefix_folds_to_a_state_that_survives_a_snapshot_and_decides_the_same(case: Case) -> None:
    """Fold, dump, load: equal; and the same decision, asked as often as one likes."""
    life = Life(case)
    await life.live()
    kind = case.kind
    view: View[Any] = View(0, kind.initial(), Control())
    for at, events in life.log:
        view = fold_view(kind, view, events, at)
        loaded = kind.load(kind.dump(view.state))
        assert loaded == view.state
        before = kind.dump(view.state)
        first = kind.decide(view.state, view.control)
        assert first == kind.decide(loaded, view.control) == kind.decide(view.state, view.control)
        assert kind.dump(view.state) == before, "deciding changes nothing"
    assert view == life.view


async def test_a_settled_action_is_asked_for_no_more_also_when_it_failed_or_is_unknown(case: Case) -> None:
    """The planner itself settles denied calls and unknown outcomes; the run goes on or ends, visibly."""
    for ok, unknown in ((False, False), (False, True)):
        life = Life(case)
        for _ in range(20):
            effects = [start.action for start in life.running.values() if start.action.effect != "read"]
            if effects:
                key = effects[0].key
                del life.running[key]
                life.append([Settled(key, "no", ok, unknown)])
                assert key not in life.running
                verdict = case.kind.decide(life.view.state, life.view.control)
                assert not isinstance(verdict, Act) or key not in {action.key for action in verdict.actions}
            elif life.running:
                await life.step()
        assert len(life.closed) == 1


async def test_a_cancelled_run_closes_as_cancelled_whenever_that_is(case: Case) -> None:
    """After each number of steps; nothing is running any more when it is decided."""
    for steps in range(4):
        life = Life(case)
        for _ in range(steps):
            if life.running:
                await life.step()
        if life.view.control.current is None:
            return
        life.running.clear()
        life.append([CancelAsked(1, "enough", "ann")])
        assert [(event.run, event.status) for event in life.closed] == [(1, "cancelled")]


async def test_a_run_is_described_as_json_with_its_status_at_every_moment(case: Case) -> None:
    """While it runs, and when it has ended."""
    life = Life(case)
    while life.running:
        shown = case.kind.describe(life.view.state, life.view.control, 1)
        assert shown["status"] == "running"
        assert orjson.loads(orjson.dumps(shown)) == shown
        await life.step()
    assert case.kind.describe(life.view.state, life.view.control, 1)["status"] == "done"


async def test_the_same_key_joins_and_folding_is_total(case: Case) -> None:
    """Asking again gives the number of the run, where the kind decides that; strange events change nothing."""
    life = Life(case)
    await life.live()
    if not isinstance(case.kind, Toy):
        assert case.begin(life.view) == 1
    at = Position(life.view.n + 1, 0, AT, 1, "driver")
    for strange in (Settled("9.9.9", "late"), Closed(9, "done"), Settled("1.1.0", "late")):
        assert case.kind.fold(life.view.state, strange, at) == life.view.state
