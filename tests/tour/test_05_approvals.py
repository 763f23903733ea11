"""Approvals: a person allows a call, with exactly the arguments shown, once."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from perdure import App, Conflict, DurableAgent, tool


def large(arguments: Mapping[str, Any]) -> bool:
    return bool(arguments["amount"] > 10)


@tool(approval=large)  # or approval=True, to ask about every call
def pay(amount: int) -> str:
    """Take money."""
    return f"{amount} paid"


def app(amount: int) -> App:
    model = f"scripted:@pay {json.dumps({'amount': amount})} | {{result}}"
    return App(agents=[DurableAgent("cashier", model=model, tools=[pay])])


async def test_a_call_waits_until_a_person_allows_it() -> None:
    """Until then the turn is `waiting`, costs nothing, and shows what is asked."""
    async with app(50).local() as runtime:
        turn = await runtime.ask("cashier", "Fifty")
        assert await turn.answer() is None
        assert turn.status == "waiting"
        [asked] = turn.approvals()
        assert (asked.name, json.loads(asked.arguments)) == ("pay", {"amount": 50})
        await turn.approve(asked, by="ann")
        assert await turn.answer() == "50 paid"


async def test_a_denied_call_is_told_to_the_model() -> None:
    """With the reason, so that it can find another way."""
    async with app(50).local() as runtime:
        turn = await runtime.ask("cashier", "Fifty")
        await turn.answer()
        await turn.deny(turn.approvals()[0], reason="too much", by="ann")
        assert "denied by ann: too much" in str(await turn.answer())


async def test_an_answer_is_given_once() -> None:
    """An approval covers one call; a second answer is refused."""
    async with app(50).local() as runtime:
        turn = await runtime.ask("cashier", "Fifty")
        await turn.answer()
        [asked] = turn.approvals()
        await turn.deny(asked)
        await turn.answer()
        with pytest.raises(Conflict):
            await turn.approve(asked)


async def test_only_calls_that_the_rule_names_are_asked_about() -> None:
    """The rule sees the arguments of the call."""
    async with app(5).local() as runtime:
        assert await (await runtime.ask("cashier", "Five")).answer() == "5 paid"
