"""Subjects that lived long: cold loads, runs of long ago, keys beyond memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from crash_stage import Stage
from perdure.agent.agent import DurableAgent
from perdure.clock import SystemClock, SystemIds
from perdure.llm.scripted import ScriptedModel
from perdure.log.limits import LogLimits
from perdure.log.log import Log
from perdure.run.control import KEYS_KEPT, Control, Position, fold_control
from perdure.run.event import Accepted, Closed
from perdure.run.plan import View, fold_view
from perdure.run.runner import Runner
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.sidecar.ports import Item
from perdure.testing.crash import Process
from perdure.turn.accept import Ask, accept
from perdure.turn.kind import TurnKind
from perdure.types import SubjectId

KIND = "turn/echo"
TURNS = 300


class CountedStore(MemoryStateStore):
    """Counts the bytes that are read."""

    read = 0

    async def get(self, key: str) -> Item | None:
        found = await super().get(key)
        self.read += len(found.value) if found else 0
        return found

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        found = await super().get_many(keys)
        self.read += sum(len(item.value) for item in found.values())
        return found


def a_stage() -> Stage:
    def kinds(process: Process) -> dict[str, TurnKind]:
        agent = DurableAgent("echo", context_messages=6)
        return {KIND: TurnKind(agent, ScriptedModel.parse("you said {user}"), clock=SystemClock())}

    store = CountedStore("s")
    return Stage(kinds, family="turn", store=store, log_limits=LogLimits(segment_commits=16))


async def say(runner: Runner, number: int) -> str:
    said = Ask(KIND, f"text {number}", "s-1", f"key {number}")
    accepted = await runner.accept(KIND, runner.subject(KIND, "s-1"), lambda view: accept(said, "queue", view))
    return accepted.run_id


def test_a_session_of_three_hundred_turns_loads_from_snapshot_and_tail_and_still_tells_the_first() -> None:
    """The cold view is what folding everything gives; the bytes read do not grow with the session."""
    stage = a_stage()
    told: dict[str, Any] = {}

    async def live() -> None:
        async with stage.runner(Process(0, "one"), sweeps=False) as runner:
            queued = [await say(runner, number) for number in (0, 1, 2)]  # the later ones wait for the first
            for run in queued:
                told[run] = await runner.wait(run, 20)
            for number in range(3, TURNS):
                run = await say(runner, number)
                told[run] = await runner.wait(run, 20)
                if number == 20:
                    stage.told["early"] = await cold(stage)
        stage.told["late"] = await cold(stage)
        async with stage.runner(Process(0, "three"), sweeps=False) as runner:
            view = await runner.view(runner.subject(KIND, "s-1"))
            assert view == await folded(stage, runner, runner.subject(KIND, "s-1"))
            for run, then in list(told.items())[:5] + list(told.items())[-2:]:
                assert await runner.describe(run) == then
                assert [event.t for _, _, event in [e async for e in runner.events(run)]][-1] == "closed"
            assert await say(runner, 7) == list(told)[7]

    stage.do(live(), 2000)
    assert stage.told["late"] < 4 * stage.told["early"]


async def cold(stage: Stage) -> int:
    """The bytes that a process reads to know the session."""
    assert isinstance(stage.store, CountedStore)
    async with stage.runner(Process(0, "cold"), slot="b", sweeps=False) as runner:
        before = stage.store.read
        await runner.view(runner.subject(KIND, "s-1"))
        return stage.store.read - before


async def folded(stage: Stage, runner: Runner, subject: SubjectId) -> View[Any]:
    kind = runner.kind(KIND)
    log = Log(stage.store, subject, clock=SystemClock(), ids=SystemIds())
    view: View[Any] = View(0, kind.initial(), Control())
    async for commit in log.history():
        at = Position(commit.n, 0, commit.at, commit.epoch, commit.driver)
        view = fold_view(kind, view, kind.codec.decode(commit.events), at)
    return view


def test_the_oldest_keys_are_forgotten_and_what_is_kept_fits_a_snapshot() -> None:
    """1,024 keys of usual length stay below 64 KiB compressed; the newest are the ones kept."""
    control = Control()
    for n in range(1, KEYS_KEPT + 101):
        key, digest = (hashlib.sha256(f"{salt}{n}".encode()).hexdigest()[:32] for salt in "kd")
        control = fold_control(control, Accepted("turn/a", {}, key, digest), Position(n, 0, "2026-01-01T00:00:00Z"))
        control = fold_control(control, Closed(n, "done"), Position(n, 1, "2026-01-01T00:00:00Z"))
    assert len(control.keys) == KEYS_KEPT
    assert next(iter(control.keys.values())).run == 101
    assert len(zlib.compress(TypeAdapter(Control).dump_json(control))) < 64 * 1024
