"""Laws of pipeline runs over generated graphs, orders of completion and crash points; pure, no engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson
from hypothesis import given
from hypothesis import strategies as st

from perdure.effect import Effect
from perdure.messaging.message import joined
from perdure.pipeline.decide import StepAction, decide
from perdure.pipeline.fold import fold
from perdure.pipeline.graph import Graph, StepSpec, check_graph, dump_graph
from perdure.pipeline.kind import codec
from perdure.pipeline.state import PipelineState, StepStatus
from perdure.run.control import Control, Position, fold_control
from perdure.run.event import Accepted, Event, Reserved, Settled, TimerFired
from perdure.run.kind import Act, Done, Wait

FIRST = 1


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 7))
    specs = []
    for i in range(size):
        before = [f"s{j}" for j in range(i)]
        needed = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
        effect = draw(st.sampled_from(list(Effect)))
        specs.append(StepSpec(f"s{i}", tuple(needed), effect=effect, max_retries=draw(st.integers(0, 2))))
    order = draw(st.permutations(specs))
    return check_graph("p", order)


@dataclass
class Loop:
    """A driver without I/O: keeps the log, decides until nothing is to be recorded, starts what is asked for."""

    graph: Graph
    log: list[tuple[Position, Event]] = field(default_factory=list)
    state: PipelineState = field(default_factory=PipelineState)
    control: Control = field(default_factory=Control)
    n: int = 0

    def append(self, *events: Event) -> None:
        self.n += 1
        for i, event in enumerate(events):
            self.fold(Position(self.n, i, f"2026-01-01T00:00:{self.n % 60:02d}.000000Z", 1, "d"), event)

    def fold(self, at: Position, event: Event) -> None:
        self.log.append((at, event))
        self.control = fold_control(self.control, event, at)
        self.state = fold(self.state, event, at)

    def next(self) -> Act | Wait | Done:
        while True:
            verdict = decide(self.state, self.control)
            if not (isinstance(verdict, Act) and verdict.record):
                return verdict
            self.append(*verdict.record)

    def recovered(self, commits: int) -> Loop:
        """Another process that read the first commits, through JSON as they are stored."""
        other = Loop(self.graph)
        for at, event in self.log:
            if at.n <= commits:
                other.n = at.n
                (decoded,) = codec().decode([orjson.loads(orjson.dumps(event))])
                other.fold(at, decoded)
        return other


def begun(graph: Graph) -> Loop:
    loop = Loop(graph)
    loop.append(Accepted("pipeline/p", {"input": {"x": 1}, "graph": dump_graph(graph)}, key="k", digest="d"))
    return loop


def settled(action: StepAction, outcome: str) -> Settled:
    if outcome == "fails":
        return Settled(action.key, '{"code": "step_failed", "message": "no", "retryable": true}', ok=False)
    return Settled(action.key, "null" if outcome == "none" else orjson.dumps({"from": action.name}).decode())


@dataclass
class Seen:
    done: dict[str, int] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


def play(loop: Loop, data: st.DataObject, seen: Seen, outcomes: list[str], stop_after: int | None = None) -> None:
    """Drive to the end, or for so many outcomes, completing what runs in any order."""
    count = 0
    while stop_after is None or count < stop_after:
        verdict = loop.next()
        if isinstance(verdict, Done):
            return
        timers = verdict.timers
        actions = verdict.actions if isinstance(verdict, Act) else ()
        choices = [*range(len(actions)), *range(-1, -1 - len(timers), -1)]
        assert choices, "an open run with nothing to do and nothing to wait for would wait for ever"
        pick = data.draw(st.sampled_from(choices))
        if pick < 0:
            loop.append(TimerFired(timers[-1 - pick][0]))
            continue
        action = actions[pick]
        assert isinstance(action, StepAction)
        if action.effect is not Effect.READ and action.key not in loop.control.effects:
            loop.append(Reserved(action.key, action.name, "", 1, action.effect.value))
        outcome = data.draw(st.sampled_from(outcomes))
        seen.messages.setdefault(action.name, []).append(orjson.dumps(joined(action.arrivals)).decode())
        seen.done[action.name] = seen.done.get(action.name, 0) + (outcome != "fails")
        seen.failures[action.name] = seen.failures.get(action.name, 0) + (outcome == "fails")
        loop.append(settled(action, outcome))
        count += 1


@given(graphs(), st.data())
def test_every_step_runs_exactly_once_in_any_order_of_completion(graph: Graph, data: st.DataObject) -> None:
    loop, seen = begun(graph), Seen()
    play(loop, data, seen, ["gives"])
    assert seen.done == {spec.name: 1 for spec in graph}
    assert loop.control.closed[FIRST].status == "done"
    assert all(step.status is StepStatus.DONE for step in loop.state.steps.values())


@given(graphs(), st.data())
def test_a_join_receives_every_dependency_once_and_the_last_one_as_its_message(
    graph: Graph, data: st.DataObject
) -> None:
    loop, seen = begun(graph), Seen()
    play(loop, data, seen, ["gives"])
    for spec in graph:
        (text,) = seen.messages[spec.name]
        message = orjson.loads(text)
        assert set(message) == {"source", "data", "id", "received_at", "dependency_messages"}
        assert set(message["dependency_messages"]) == set(spec.depends_on)
        for name, dependency in message["dependency_messages"].items():
            assert dependency["source"] == name
            assert dependency["data"] == {"from": name}
            assert set(dependency) == {"source", "data", "id", "received_at"}
        if spec.depends_on:
            last = max(spec.depends_on, key=lambda name: loop.state.steps[name].order)
            assert message["source"] == last
        else:
            assert (message["source"], message["data"]) == ("", {"x": 1})


@given(graphs(), st.data())
def test_dependents_of_a_step_without_output_are_skipped_and_the_run_still_ends(
    graph: Graph, data: st.DataObject
) -> None:
    loop, seen = begun(graph), Seen()
    play(loop, data, seen, ["gives", "none"])
    assert loop.control.closed[FIRST].status == "done"
    for spec in graph:
        step = loop.state.steps[spec.name]
        complete = all(loop.state.steps[name].output for name in spec.depends_on)
        assert (step.status is StepStatus.DONE) == complete
        assert (spec.name in seen.done) == complete


@given(graphs(), st.data())
def test_a_step_is_called_at_most_once_more_than_its_retries_then_the_run_fails(
    graph: Graph, data: st.DataObject
) -> None:
    loop, seen = begun(graph), Seen()
    play(loop, data, seen, ["gives", "fails"])
    closed = loop.control.closed[FIRST]
    gave_up = [spec.name for spec in graph if seen.failures.get(spec.name, 0) == spec.max_retries + 1]
    assert (closed.status == "failed") == bool(gave_up)
    for spec in graph:
        assert seen.done.get(spec.name, 0) <= 1
        assert seen.failures.get(spec.name, 0) <= spec.max_retries + 1
        assert len(set(seen.messages.get(spec.name, []))) <= 1  # every attempt receives the same message


@given(graphs(), st.data())
def test_after_a_crash_at_any_commit_no_settled_step_is_asked_for_again(graph: Graph, data: st.DataObject) -> None:
    loop, seen = begun(graph), Seen()
    play(loop, data, seen, ["gives", "none", "fails"], stop_after=data.draw(st.integers(0, 8)))
    cut = data.draw(st.integers(1, loop.n))
    other = loop.recovered(cut)
    at_cut = {name for name, step in other.state.steps.items() if step.status is StepStatus.DONE}
    keys = {step.key for step in other.state.steps.values() if step.key}
    after = Seen()
    play(other, data, after, ["gives"])
    assert not at_cut & set(after.done)
    assert set(keys) <= {step.key for step in other.state.steps.values()} | _retried(loop, other)
    assert not other.control.open


def _retried(loop: Loop, other: Loop) -> set[str]:
    """Keys that a planned retry replaced."""
    return {event.key for _, event in other.log if isinstance(event, Settled) and not event.ok}


@given(graphs(), st.data())
def test_a_recovered_process_asks_for_the_same_keys_and_messages(graph: Graph, data: st.DataObject) -> None:
    loop, seen = begun(graph), Seen()
    play(loop, data, seen, ["gives", "fails"], stop_after=data.draw(st.integers(0, 6)))
    verdict = loop.next()
    assert loop.recovered(loop.n).next() == verdict
