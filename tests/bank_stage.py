"""Turns with tools of each effect on the crash stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crash_stage import METRICS, Stage, logged
from perdure.agent.agent import DurableAgent
from perdure.errors import Transient
from perdure.llm.scripted import ScriptedModel
from perdure.run.runner import Runner
from perdure.sidecar.ports import ChatReply
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

    def __init__(self, *, slow: bool = False, replies: Sequence[ChatReply | str] = REPLIES) -> None:
        self.slow = slow
        self.replies = replies
        self.done: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = {"put": set(), "pay": set()}
        self.stage = Stage(self._kinds, family="turn")

    def _kinds(self, process: Process) -> dict[str, TurnKind]:
        @tool(effect="read")
        async def look() -> str:
            self.done["look"] += 1
            return "seen"

        @tool(effect="idempotent")
        async def put(context: ToolContext) -> str:
            await self._take(0.07)
            self._happen("put", context.key)
            return "put"

        @tool
        async def pay(context: ToolContext) -> str:
            await self._take(0.16)
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

        @tool(approval=True)
        async def sign() -> str:
            raise AssertionError("nobody allowed this")

        agent = DurableAgent("teller", tools=[look, put, pay, send, sign], approval_s=4)
        return {KIND: TurnKind(agent, ScriptedModel(self.replies), clock=self.stage.clock, metrics=METRICS)}

    def _happen(self, name: str, key: str) -> None:
        alive()
        if name == "pay" or key not in self.keys[name]:
            self.done[name] += 1
        self.keys[name].add(key)

    async def _take(self, seconds: float) -> None:
        if self.slow:
            await self.stage.clock.sleep(seconds)

    async def client(self, runner: Runner) -> JsonObject:
        """Ask, and wait for the answer; repeat what was not answered."""
        said = Ask(KIND, "pay and send", "s-1", "k")
        while True:
            try:
                accepted = await runner.accept(
                    KIND, runner.subject(KIND, "s-1"), lambda view: accept(said, "queue", view)
                )
                return {"run": accepted.run_id, **await runner.wait(accepted.run_id, 50)}
            except Transient:
                await self.stage.clock.sleep(0.1)

    async def patient(self, runner: Runner) -> JsonObject:
        """Ask, and look now and then until it is over: nobody answers questions."""
        told = await self.client(runner)
        while told["status"] in ("running", "waiting"):
            await self.stage.clock.sleep(0.5)
            try:
                told = {**told, **await runner.describe(told["run"])}
            except Transient:
                continue
        return told

    def check(self) -> None:
        told = self.stage.said[-1]
        assert (told["status"], told["answer"]) == ("done", "all done"), told
        self.stage.check(told["run"])
        assert self.done["put"] == self.done["pay"] == 1
        assert {name: len(keys) for name, keys in self.keys.items()} == {"put": 1, "pay": 1}
        sent = logged(self.stage.store, "settled")[-1]
        assert self.done["send"] == 1 if sent["ok"] else sent["unknown"] and self.done["send"] <= 1
