"""The smallest kind of run: a list of steps, done side by side or one after the other, against a world that counts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pydantic import TypeAdapter

from perdure.effect import Doubt, Effect
from perdure.run.control import Control, Position, RunInfo
from perdure.run.event import Accepted, Closed, Event, EventCodec, Settled
from perdure.run.kind import Act, Action, Doing, Done, Verdict
from perdure.types import JsonObject


@dataclass
class World:
    """What steps do to the outside: survives any crash of the process that does it."""

    done: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    begun: int = 0
    gates: dict[str, asyncio.Event] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One run of the toy: which steps are left."""

    run: int
    at: int
    steps: tuple[str, ...]
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToyState:
    """Tasks by run."""

    tasks: dict[int, Task] = field(default_factory=dict)


_STATE = TypeAdapter(ToyState)


class Toy:
    """Steps are named `effect:name`, e.g. `once:pay`; each is one action, one after the other."""

    name = "toy"
    version = "1"

    def __init__(
        self,
        world: World,
        *,
        doubt: Doubt = Doubt.TELL,
        reconcile: bool = False,
        approval_s: float | None = None,
        limit_s: float | None = 0.0,
    ) -> None:
        self.world = world
        self.codec = EventCodec()
        self._doubt = doubt
        self._reconcile = reconcile
        self._approval_s = approval_s
        self._limit_s = limit_s

    def initial(self) -> ToyState:
        return ToyState()

    def fold(self, state: ToyState, event: Event, at: Position) -> ToyState:
        if isinstance(event, Accepted):
            steps = event.payload["steps"]
            assert isinstance(steps, list)
            task = Task(at.n, at.n, tuple(str(step) for step in steps))
            return ToyState({**state.tasks, at.n: task})
        if isinstance(event, Closed):
            return ToyState({n: task for n, task in state.tasks.items() if n != event.run})
        if isinstance(event, Settled):
            run = int(event.key.split(".")[0])
            task = state.tasks.get(run)
            if task is not None and _key(task) == event.key:
                done = replace(task, results=(*task.results, "unknown" if event.unknown else event.content))
                return ToyState({**state.tasks, run: done})
        return state

    def decide(self, state: ToyState, control: Control) -> Verdict:
        current = control.current
        if current is None:
            return Done()
        task = state.tasks[current.n]
        if current.cancel is not None:
            return Act(record=(Closed(current.n, "cancelled", {"reason": current.cancel}),))
        if len(task.results) == len(task.steps):
            return Act(record=(Closed(current.n, "done", {"results": list(task.results)}),))
        step = task.steps[len(task.results)]
        action = Action(
            key=_key(task),
            run=current.n,
            name=step,
            effect=Effect(step.split(":")[0]),
            doubt=self._doubt,
            digest=step,
            arguments=step,
            reconcilable=self._reconcile,
            approval_s=self._approval_s,
            limit_s=self._limit_s,
        )
        return Act(actions=(action,))

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        self.world.begun += 1
        gate = self.world.gates.get(action.name)
        if gate is not None:
            await gate.wait()
        if action.effect is not Effect.IDEMPOTENT or doing.key not in self.world.keys:
            self.world.done[action.name] += 1
            self.world.keys.add(doing.key)
        return [Settled(action.key, f"did {action.name}")]

    async def reconcile(self, action: Action, doing: Doing) -> Settled | bool | None:
        if doing.key in self.world.keys:
            return Settled(action.key, f"did {action.name}")
        return False

    def ended(self, run_id: str, info: RunInfo) -> None:
        self.world.ended.append(run_id)

    def dump(self, state: ToyState) -> bytes:
        return _STATE.dump_json(state)

    def load(self, data: bytes) -> ToyState:
        return _STATE.validate_json(data)

    def describe(self, state: ToyState, control: Control, run: int) -> JsonObject:
        info = control.run(run)
        assert info is not None
        return {"status": info.status, "result": info.result}


def _key(task: Task) -> str:
    return f"{task.run}.{task.at}.{len(task.results)}"


def begin(steps: Sequence[str], key: str = "") -> Accepted:
    """The event that begins a toy run."""
    return Accepted("toy/one", {"steps": list(steps)}, key=key, digest=",".join(steps))
