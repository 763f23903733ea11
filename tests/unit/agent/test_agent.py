"""The declaration of an agent."""

from __future__ import annotations

import inspect
from decimal import Decimal
from typing import Any

import pytest

from perdure.agent.agent import DurableAgent
from perdure.errors import Invalid
from perdure.llm.usage import Price, PriceTable
from perdure.turn.rules import TurnDefaults, TurnRules


def look() -> str:
    """Look."""
    return "seen"


def test_every_constructor_parameter_is_readable_under_its_name() -> None:
    agent = DurableAgent("Gandalf", "a wizard", state_store_name="statestore", service_port=8001, max_retries=3)
    for name in inspect.signature(DurableAgent).parameters:
        assert hasattr(agent, name), name
    assert (agent.state_store_name, agent.service_port, agent.max_retries) == ("statestore", 8001, 3)


def test_role_and_goal_come_before_the_instructions() -> None:
    agent = DurableAgent("a", "a clerk", goal="Sell rooms.", instructions=["Be brief.", "Be kind."])
    assert agent.instructions == "You are a clerk.\nYour goal: Sell rooms.\nBe brief.\nBe kind."


def test_plain_functions_become_tools() -> None:
    assert [made.name for made in DurableAgent("a", tools=[look]).tools] == ["look"]


def test_a_subclass_hands_on_what_it_likes() -> None:
    class Recoverable(DurableAgent):
        def __init__(self) -> None:
            super().__init__(name="FaultTolerantAgent", max_retries=3, retry_delay=1.0, enable_transactions=True)

    assert (Recoverable().name, Recoverable().retry_delay) == ("FaultTolerantAgent", 1.0)


@pytest.mark.parametrize(
    ("options", "code", "named"),
    [
        ({"name": "two words"}, "agent_name", "two words"),
        ({"name": ""}, "agent_name", "''"),
        ({"on_message": "drop"}, "agent_option", "on_message"),
        ({"max_steps": 0}, "agent_option", "max_steps"),
        ({"max_steps": True}, "agent_option", "max_steps"),
        ({"approval_s": 0}, "agent_option", "approval_s"),
        ({"service_port": 70_000}, "agent_option", "service_port"),
        ({"tools": [look, look]}, "tool_duplicate", "look"),
    ],
)
def test_a_wrong_declaration_is_refused_and_named(options: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(Invalid) as refused:
        DurableAgent(**{"name": "a", **options})
    assert refused.value.code == code
    assert named in str(refused.value)


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        DurableAgent("a", colour="red")  # type: ignore[call-arg]


def test_what_the_agent_leaves_open_comes_from_the_defaults() -> None:
    defaults = TurnDefaults(max_steps=7, max_tokens=100, context_messages=5, approval_s=60)
    rules = TurnRules.of(DurableAgent("a", max_steps=3), defaults)
    assert (rules.max_steps, rules.limits.total_tokens, rules.context_messages, rules.approval_s) == (3, 100, 5, 60)


def test_a_cost_limit_needs_prices() -> None:
    with pytest.raises(Invalid, match="price"):
        TurnRules.of(DurableAgent("a", max_cost=1.5))
    prices = PriceTable({"m": Price(Decimal(1), Decimal(2))})
    assert TurnRules.of(DurableAgent("a", max_cost=1.5, prices=prices)).limits.cost == Decimal("1.5")
