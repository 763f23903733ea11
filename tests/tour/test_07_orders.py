"""Orders for a running turn: cancel, pause, resume, steer."""

import asyncio

import pytest

from perdure import App, Conflict, DurableAgent, Failed, tool


class Thinker:
    """An app whose agent's tool says when it has begun and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        script = "scripted:@think | I {result} about: {user}"
        self.app = App(agents=[DurableAgent("thinker", model=script, tools=[self.tool()])])

    def tool(self):
        @tool(effect="read")
        async def think() -> str:
            """Think until told to stop."""
            self.begun.set()
            await self.go_on.wait()
            return "thought"

        return think


async def test_a_cancelled_turn_stops_and_says_so() -> None:
    """What runs is told to stop; the turn ends as `cancelled`, and stays so."""
    thinker = Thinker()
    async with thinker.app.local() as runtime:
        turn = await runtime.ask("thinker", "life")
        await thinker.begun.wait()
        await turn.cancel("no time")
        with pytest.raises(Failed, match="no time"):
            await turn.answer()
        assert turn.status == "cancelled"
        with pytest.raises(Conflict):
            await turn.pause()


async def test_the_session_goes_on_after_a_cancelled_turn() -> None:
    """The call that was cut has a result that says so, so the model can carry on."""
    thinker = Thinker()
    async with thinker.app.local() as runtime:
        turn = await runtime.ask("thinker", "life", session="s-1")
        await thinker.begun.wait()
        await turn.cancel("no time")
        thinker.go_on.set()
        following = await runtime.ask("thinker", "lunch", session="s-1")
        assert await following.answer() == "I thought about: lunch"


async def test_a_paused_turn_starts_nothing_until_it_is_resumed() -> None:
    """What runs already comes to its end; the next step waits."""
    thinker = Thinker()
    async with thinker.app.local() as runtime:
        turn = await runtime.ask("thinker", "life")
        await thinker.begun.wait()
        await turn.pause()
        thinker.go_on.set()
        async for _, _, event in turn.events():
            if event.t == "settled":
                break
        assert await turn.answer() is None
        assert (turn.status, turn.show()["steps"]) == ("paused", 1)
        await turn.resume()
        assert await turn.answer() == "I thought about: life"


async def test_a_word_to_a_running_turn_reaches_the_model_before_its_next_call() -> None:
    """Steering does not begin a turn of its own; here the model then thinks once more."""
    thinker = Thinker()
    async with thinker.app.local() as runtime:
        turn = await runtime.ask("thinker", "life", session="s-1")
        await thinker.begun.wait()
        await turn.steer("think of lunch")
        thinker.go_on.set()
        assert await turn.answer() == "I thought about: think of lunch"
        assert len((await runtime.session("thinker", "s-1"))["turns"]) == 1
