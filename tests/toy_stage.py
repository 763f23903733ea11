"""Toy runs on the crash stage: the world they act on, a client, what must hold afterwards."""

from __future__ import annotations

from typing import Any

from crash_stage import Stage
from perdure.effect import Doubt
from perdure.errors import Conflict, Transient
from perdure.run.plan import View
from perdure.run.runner import Runner
from perdure.types import JsonObject
from toy import Toy, World, begin

STEPS = ("read:a", "idempotent:b", "once:c", "read:d")


class Toys:
    """A stage of toys over one world. With `approval_s` each step needs a person, whom the client plays."""

    def __init__(self, *, doubt: Doubt = Doubt.TELL, reconcile: bool = False, approval_s: float | None = None) -> None:
        self.world = World()
        self.stage = Stage(
            lambda _: {"toy/one": Toy(self.world, doubt=doubt, reconcile=reconcile, approval_s=approval_s)}
        )
        self.reconcile = reconcile

    async def client(self, runner: Runner) -> JsonObject:
        """Ask, approve what must be approved, wait for the end; repeat what was not answered."""
        run = await self._surely(lambda: ask(runner))
        while True:
            told = await self._surely(lambda: runner.wait(run, 50))
            if told["status"] == "waiting":
                await self._surely(lambda: approve(runner, run))
            elif told["status"] != "running":
                return {"run": run, **told}

    async def onlooker(self, runner: Runner) -> JsonObject:
        """Ask, and look now and then: nobody waits for the run."""
        run = await self._surely(lambda: ask(runner))
        while (told := await self._surely(lambda: runner.describe(run)))["status"] != "done":
            if told["status"] == "waiting":
                await self._surely(lambda: approve(runner, run))
            await self.stage.clock.sleep(0.5)
        return {"run": run, **told}

    async def bystander(self, runner: Runner) -> JsonObject:
        """Ask for a single `once` step that needs a person, and leave it alone."""
        run = await self._surely(lambda: ask(runner, "once:c"))
        while (told := await self._surely(lambda: runner.describe(run)))["status"] not in ("done", "failed"):
            await self.stage.clock.sleep(0.5)
        return {"run": run, **told}

    async def _surely(self, call: Any) -> Any:
        while True:
            try:
                return await call()
            except Transient:
                await self.stage.clock.sleep(0.1)

    def check(self) -> None:
        """The right answer, by the right number of effects."""
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


async def approve(runner: Runner, run: str) -> None:
    """Say yes to everything that is asked; what was answered meanwhile is fine."""
    view = await runner.view(runner.subject("toy/one", "s"))
    for approval in view.control.approvals.values():
        if approval.status == "asked":
            try:
                await runner.approve(run, approval.call, approval.digest, "ann")
            except Conflict as error:
                assert error.code in ("run_closed", "approval_answered")  # noqa: PT017 - which of them is a race
