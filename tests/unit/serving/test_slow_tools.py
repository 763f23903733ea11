"""Whole turns whose `once` tool blocks in its thread longer than anybody waits for it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path

from perdure import App, DurableAgent, Settings, ToolContext, tool
from perdure.settings import RunSettings


@dataclass
class Bank:
    """Keeps what was paid; a payment takes until `open` is set."""

    open: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)
    paid: list[str] = field(default_factory=list)

    def app(self, timeout_s: float, **settings: float) -> App:
        """An agent that pays once; each has a toolbox of its own, as each replica has."""

        @tool(effect="once", timeout_s=timeout_s)
        def pay(order: str, context: ToolContext) -> str:
            """Pay."""
            self.begun.set()
            self.open.wait(30)
            self.paid.append(context.key)
            return "paid"

        @pay.reconciles
        async def look_up(key: str) -> str | None:
            self.asked.set()
            return "paid, says the bank" if key in self.paid else None

        clerk = DurableAgent("clerk", model='scripted:@pay {"order": "1"} | {result}', tools=[pay])
        return App(agents=[clerk], settings=Settings(run=RunSettings(**settings)))  # type: ignore[arg-type]


async def test_a_payment_that_passes_its_limit_is_made_once_and_found_by_reconciliation() -> None:
    bank = Bank()
    async with bank.app(timeout_s=0.2).local() as runtime:
        turn = await runtime.ask("clerk", "pay")
        opening = threading.Timer(0.3, bank.open.set)  # after the limit, and before a second one is over
        opening.start()
        assert await turn.answer() == "paid, says the bank"
        opening.join()
    assert len(bank.paid) == 1


async def test_a_payment_that_hangs_for_good_is_unknown_and_not_made_again() -> None:
    bank = Bank()
    async with bank.app(timeout_s=0.1).local() as runtime:
        turn = await runtime.ask("clerk", "pay")
        assert "unknown" in str(await turn.answer())
        bank.open.set()
    assert not bank.asked.is_set()


async def test_a_payment_cut_by_a_shutdown_is_not_made_again_by_the_next_replica(tmp_path: Path) -> None:
    bank = Bank()
    async with bank.app(timeout_s=30, shutdown_s=0.1).local(tmp_path) as runtime:
        turn = await runtime.ask("clerk", "pay")
        await asyncio.to_thread(bank.begun.wait, 10)
    bank.begun.clear()
    async with bank.app(timeout_s=30, shutdown_s=0.1).local(tmp_path) as runtime:
        again = await runtime.turn(turn.id)
        assert "unknown" in str(await again.answer())
    assert not bank.begun.is_set()
    bank.open.set()
