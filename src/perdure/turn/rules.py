"""What a turn needs to know of the agent that takes it, with the defaults filled in."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol, Self, TypeAlias

from perdure.errors import Invalid
from perdure.llm.model import DEFAULT_TIMEOUT_S
from perdure.llm.structured import AnswerShape
from perdure.llm.usage import PriceTable, UsageLimits
from perdure.tools.toolbox import Toolbox

OnMessage: TypeAlias = Literal["queue", "steer", "reject", "interrupt"]
"""What a message means that arrives while a turn runs: run after it, reach it, be refused, or replace it."""

APPROVAL_S = 86_400.0
"""A day: whoever must approve may be asleep."""


class TurnAgent(Protocol):
    """The declaration of an agent, as far as its turns depend on it; None leaves a limit to the defaults."""

    name: str
    instructions: str
    toolbox: Toolbox
    shape: AnswerShape[Any] | None
    on_message: OnMessage
    max_steps: int | None
    max_tokens: int | None
    max_cost: Decimal | None
    prices: PriceTable | None
    approval_s: float | None
    context_messages: int | None
    temperature: float | None
    wait_for_model: bool


@dataclass(frozen=True, slots=True)
class TurnDefaults:
    """Limits of agents that do not say otherwise; a service fills them from its settings."""

    max_steps: int = 20
    max_tokens: int | None = None
    max_cost: Decimal | None = None
    prices: PriceTable = field(default_factory=PriceTable)
    approval_s: float = APPROVAL_S
    context_messages: int = 50
    model_timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class TurnRules:
    """Everything `decide` and `do` depend on beside the log.

    `limits` are of one turn, `approval_s` is how long a person has to approve a call, `context_messages` how many
    of the newest messages are kept and shown to the model (in whole exchanges). With `wait_for_model` a turn waits
    for a model that stays away instead of failing.
    """

    name: str
    toolbox: Toolbox = field(default_factory=Toolbox)
    instructions: str = ""
    shape: AnswerShape[Any] | None = None
    on_message: OnMessage = "queue"
    max_steps: int = 20
    limits: UsageLimits = field(default_factory=UsageLimits)
    prices: PriceTable = field(default_factory=PriceTable)
    approval_s: float = APPROVAL_S
    context_messages: int = 50
    temperature: float | None = None
    wait_for_model: bool = False
    model_timeout_s: float = DEFAULT_TIMEOUT_S

    @classmethod
    def of(cls, agent: TurnAgent, defaults: TurnDefaults | None = None) -> Self:
        """The rules of `agent`. Raises: Invalid (code `agent_option`) for a cost limit without any price."""
        fallback = defaults or TurnDefaults()
        cost = agent.max_cost if agent.max_cost is not None else fallback.max_cost
        prices = agent.prices if agent.prices is not None else fallback.prices
        if cost is not None and not prices.prices:
            raise Invalid(
                "agent_option",
                f"agent {agent.name!r} has a cost limit but no model a price; give `prices` or set PERDURE_LLM__PRICES",
            )
        tokens = agent.max_tokens if agent.max_tokens is not None else fallback.max_tokens
        return cls(
            name=agent.name,
            toolbox=agent.toolbox,
            instructions=agent.instructions,
            shape=agent.shape,
            on_message=agent.on_message,
            max_steps=agent.max_steps or fallback.max_steps,
            limits=UsageLimits(total_tokens=tokens, cost=cost),
            prices=prices,
            approval_s=agent.approval_s or fallback.approval_s,
            context_messages=agent.context_messages or fallback.context_messages,
            temperature=agent.temperature,
            wait_for_model=agent.wait_for_model,
            model_timeout_s=fallback.model_timeout_s,
        )
