"""A second message while a turn runs: queued, steering, refused or interrupting, as the agent declares."""

import asyncio

import pytest

from perdure import App, Conflict, DurableAgent, ModelRequest


def app(policy: str, begun: asyncio.Event, go_on: asyncio.Event) -> App:
    async def model(request: ModelRequest) -> str:
        begun.set()
        await go_on.wait()
        return f"about {request.messages[-1].text}"

    return App(agents=[DurableAgent("clerk", model=model, on_message=policy)])  # type: ignore[arg-type]


async def test_queue_runs_it_afterwards() -> None:
    """The default: one after the other, in the order of arrival."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with app("queue", begun, go_on).local() as runtime:
        first = await runtime.ask("clerk", "one", session="s-1")
        second = await runtime.ask("clerk", "two", session="s-1")
        await second.refresh()
        assert second.status == "accepted"
        go_on.set()
        assert (await first.answer(), await second.answer()) == ("about one", "about two")


async def test_steer_hands_it_to_the_running_turn() -> None:
    """Both callers get the same turn."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with app("steer", begun, go_on).local() as runtime:
        first = await runtime.ask("clerk", "one", session="s-1")
        await begun.wait()
        second = await runtime.ask("clerk", "two", session="s-1")
        assert second.id == first.id
        go_on.set()
        assert await second.answer() == "about two"


async def test_reject_refuses_it() -> None:
    """The caller is told to come back later."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with app("reject", begun, go_on).local() as runtime:
        first = await runtime.ask("clerk", "one", session="s-1")
        with pytest.raises(Conflict) as refused:
            await runtime.ask("clerk", "two", session="s-1")
        assert refused.value.code == "turn_running"
        go_on.set()
        assert await first.answer() == "about one"


async def test_interrupt_cancels_the_running_turn() -> None:
    """The newer message counts."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with app("interrupt", begun, go_on).local() as runtime:
        first = await runtime.ask("clerk", "one", session="s-1")
        await begun.wait()
        second = await runtime.ask("clerk", "two", session="s-1")
        go_on.set()
        assert await second.answer() == "about two"
        await first.refresh()
        assert first.status == "cancelled"
