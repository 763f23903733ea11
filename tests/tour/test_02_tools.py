"""Tools: functions the model may call. Type hints and the docstring tell it how."""

from datetime import date

import pytest

from perdure import App, ChatReply, DurableAgent, EndTurn, Failed, ModelRequest, ToolContext, tool


@tool(effect="read")  # changes nothing: repeated freely after a crash
async def free_rooms(night: date) -> list[str]:
    """Rooms that are free on one night."""
    return ["7", "8"]


@tool(effect="idempotent")  # the target knows the key: repeated after a crash with the same one
async def book(room: str, night: date, context: ToolContext) -> dict[str, str]:
    """Book a room for one night."""
    return {"room": room, "night": night.isoformat(), "key": context.key}


@tool  # `once` unless declared otherwise: never repeated silently
def pay(amount: int) -> str:
    """Take money."""
    if amount > 100:
        raise ValueError("the card was refused")
    return f"{amount} paid"


@tool(effect="read")
def stock() -> str:
    """What is left."""
    raise EndTurn("the hotel has closed down", code="closed_down")


def concierge(script: str) -> App:
    return App(agents=[DurableAgent("concierge", model=f"scripted:{script}", tools=[free_rooms, book, pay, stock])])


async def test_the_model_calls_a_tool_and_sees_its_result() -> None:
    """The result comes back to the model, which then answers."""
    app = concierge('@free_rooms {"night": "2026-05-17"} | Free: {result}')
    async with app.local() as runtime:
        assert await (await runtime.ask("concierge", "Free?")).answer() == 'Free: ["7","8"]'


async def test_several_calls_of_one_reply_run_side_by_side() -> None:
    """Each call has a key of its own, which stays the same in every attempt."""
    two = '@book {"room": "7", "night": "2026-05-17"} @book {"room": "8", "night": "2026-05-17"} | Booked.'
    async with concierge(two).local() as runtime:
        turn = await runtime.ask("concierge", "Both", session="s-1")
        assert await turn.answer() == "Booked."
        session = await runtime.session("concierge", "s-1")
        results = [message["text"] for message in session["messages"] if message["role"] == "tool"]
        assert len(set(results)) == 2


async def test_wrong_arguments_are_told_to_the_model_and_nothing_runs() -> None:
    """The model can correct itself: it learns which argument was wrong and why."""
    async with concierge('@pay {"amount": "a lot"} | {result}').local() as runtime:
        answer = await (await runtime.ask("concierge", "Pay")).answer()
        assert "wrong_arguments" in str(answer)
        assert "amount" in str(answer)


async def test_a_tool_that_raises_is_a_result_too() -> None:
    """The model sees the error and decides what to do about it."""
    async with concierge('@pay {"amount": 500} | {result}').local() as runtime:
        assert "the card was refused" in str(await (await runtime.ask("concierge", "Pay")).answer())


async def test_a_tool_may_end_the_turn() -> None:
    """`EndTurn` fails the whole turn with the code given."""
    async with concierge("@stock | never said").local() as runtime:
        turn = await runtime.ask("concierge", "Anything left?")
        with pytest.raises(Failed, match="closed down") as ended:
            await turn.answer()
        assert ended.value.code == "closed_down"


async def test_a_model_can_be_a_function() -> None:
    """It gets the messages and the tools on offer, and returns a reply or just its text."""

    def model(request: ModelRequest) -> ChatReply | str:
        return f"I may use {', '.join(tool.name for tool in request.tools)}"

    app = App(agents=[DurableAgent("concierge", model=model, tools=[free_rooms, book])])
    async with app.local() as runtime:
        assert await (await runtime.ask("concierge", "?")).answer() == "I may use free_rooms, book"
