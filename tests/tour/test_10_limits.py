"""Limits: a turn that goes in circles, or costs too much, ends and says why."""

from decimal import Decimal

import pytest

from perdure import App, ChatCall, ChatReply, DurableAgent, Failed, ModelRequest, Price, PriceTable, tool


@tool(effect="read")
def look() -> str:
    """Look around."""
    return "nothing"


def in_circles(request: ModelRequest) -> ChatReply:
    call = ChatCall(f"call-{len(request.messages)}", "look", "{}")
    return ChatReply("Let me look again.", (call,), input_tokens=100, output_tokens=10, model="small")


async def test_the_number_of_model_calls_is_limited() -> None:
    """The turn fails with `step_limit`; what was said so far is kept."""
    agent = DurableAgent("seeker", model=in_circles, tools=[look], max_steps=3)
    async with App(agents=[agent]).local() as runtime:
        turn = await runtime.ask("seeker", "Find it")
        with pytest.raises(Failed) as ended:
            await turn.answer()
        assert ended.value.code == "step_limit"
        assert (turn.show()["steps"], turn.show()["answer"]) == (3, "Let me look again.")


async def test_tokens_and_money_are_limited() -> None:
    """Prices are yours: none are built in, because they change."""
    prices = PriceTable({"small": Price(Decimal(2), Decimal(10))})
    for limit in ({"max_tokens": 200}, {"max_cost": 0.0005, "prices": prices}):
        agent = DurableAgent("seeker", model=in_circles, tools=[look], **limit)  # type: ignore[arg-type]
        async with App(agents=[agent]).local() as runtime:
            turn = await runtime.ask("seeker", "Find it")
            with pytest.raises(Failed) as ended:
                await turn.answer()
            assert ended.value.code == "cost_limit"
            assert turn.show()["steps"] == 2
