"""Every boundary of a turn with tools of each effect is a crash point; afterwards the promises hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from crash_stage import METRICS, Stage, boundaries, logged
from perdure.agent.agent import DurableAgent
from perdure.llm.scripted import ScriptedModel
from perdure.run.runner import Runner
from perdure.testing.crash import Process, alive
from perdure.tools import ToolContext, tool
from perdure.turn.accept import Ask, accept
from perdure.turn.kind import TurnKind
from perdure.types import JsonObject
from turn_loop import asks, call

KIND = "turn/teller"
REPLIES = [
    asks(call("look", "{}", "1"), call("put", "{}", "2"), call("pay", "{}", "3")),
    asks(call("send", "{}", "4")),
    "all done",
]


class Bank:
    """The outside of one agent: what its tools did, by tool and by key."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = {"put": set(), "pay": set()}
        self.stage = Stage(self._kinds, family="turn")

    def _kinds(self, process: Process) -> dict[str, TurnKind]:
        @tool(effect="read")
        async def look() -> str:
            return "seen"

        @tool(effect="idempotent")
        async def put(context: ToolContext) -> str:
            self._happen("put", context.key)
            return "put"

        @tool
        async def pay(context: ToolContext) -> str:
            self._happen("pay", context.key)
            return "paid"

        @pay.reconciles
        async def paid(key: str) -> str | None:
            return "paid" if key in self.keys["pay"] else None

        @tool
        async def send() -> str:
            alive()
            self.done["send"] += 1
            return "sent"

        agent = DurableAgent("teller", tools=[look, put, pay, send])
        return {KIND: TurnKind(agent, ScriptedModel(REPLIES), clock=self.stage.clock, metrics=METRICS)}

    def _happen(self, name: str, key: str) -> None:
        alive()
        if name == "pay" or key not in self.keys[name]:
            self.done[name] += 1
        self.keys[name].add(key)

    async def client(self, runner: Runner) -> JsonObject:
        said = Ask(KIND, "pay and send", "s-1", "k")
        accepted = await runner.accept(KIND, runner.subject(KIND, "s-1"), lambda view: accept(said, "queue", view))
        return {"run": accepted.run_id, **await runner.wait(accepted.run_id, 50)}

    def check(self) -> None:
        told = self.stage.said[-1]
        assert (told["status"], told["answer"]) == ("done", "all done"), told
        self.stage.check(told["run"])
        assert self.done["put"] == self.done["pay"] == 1
        assert {name: len(keys) for name, keys in self.keys.items()} == {"put": 1, "pay": 1}
        sent = logged(self.stage.store, "settled")[-1]
        assert self.done["send"] == 1 if sent["ok"] else sent["unknown"] and self.done["send"] <= 1


@cache
def crossed() -> int:
    banks: list[Bank] = []

    def stage() -> Stage:
        banks.append(Bank())
        return banks[-1].stage

    return len(boundaries(stage, lambda _: banks[-1].client))


async def lived(*crashes: int, slots: str = "aaaa") -> None:
    bank, cut = Bank(), []
    for crash_at, slot in zip(crashes, slots, strict=False):
        dead = await bank.stage.life(bank.client, crash_at=crash_at, slot=slot)
        cut.append(f"{len(dead.boundaries)} ({dead.boundaries[-1]})")
    try:
        await bank.stage.life(bank.client, slot=slots[len(crashes)])
        bank.check()
    except AssertionError as error:
        raise AssertionError(f"after crashes at {', '.join(cut)}: {error}") from error


def test_a_turn_survives_a_crash_at_every_boundary() -> None:
    """Three calls side by side, then one of which nobody can say what became of it, then the answer."""
    assert crossed() >= 20

    async def each() -> None:
        for k in range(1, crossed() + 1):
            await lived(k)

    asyncio.run(each())


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(1, 36), min_size=2, max_size=3), st.sampled_from(["aaaa", "abab", "aabb"]))
def test_a_turn_survives_several_crashes(crashes: list[int], slots: str) -> None:
    """Pairs and triples of crash points, in lives of one slot or of two."""
    asyncio.run(lived(*crashes, slots=slots))
