"""Toy runs on the crash stage: the world they act on, a client, what must hold afterwards."""

from __future__ import annotations

from typing import Any

from crash_stage import Stage
from perdure.effect import Doubt
from perdure.run.plan import View
from perdure.run.runner import Runner
from perdure.types import JsonObject
from toy import Toy, World, begin

STEPS = ("read:a", "idempotent:b", "once:c", "read:d")


class Toys:
    """A stage of toys over one world."""

    def __init__(self, *, doubt: Doubt = Doubt.TELL, reconcile: bool = False) -> None:
        self.world = World()
        self.stage = Stage(lambda: {"toy/one": Toy(self.world, doubt=doubt, reconcile=reconcile)})
        self.reconcile = reconcile

    async def client(self, runner: Runner) -> JsonObject:
        run = await ask(runner)
        return {"run": run, **await runner.wait(run, 50)}

    def check(self) -> None:
        told = self.stage.said[-1]
        assert told["status"] == "done"
        self.stage.check(told["run"])
        results = told["result"]["results"]
        once = results[2]
        assert [*results[:2], results[3]] == ["did read:a", "did idempotent:b", "did read:d"]
        assert self.world.done["idempotent:b"] == 1
        assert self.world.done["once:c"] <= 1
        assert once in (("did once:c",) if self.reconcile else ("did once:c", "unknown"))
        if once == "did once:c":
            assert self.world.done["once:c"] == 1


async def ask(runner: Runner, *steps: str, key: str = "k", session: str = "s") -> str:
    def decide(view: View[Any]) -> list[object] | int:
        used = view.control.keys.get(key)
        return used.run if used is not None else [begin(steps or STEPS, key)]

    return (await runner.accept("toy/one", runner.subject("toy/one", session), decide)).run_id
