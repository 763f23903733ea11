"""What a turn needs to know of the agent that takes it."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

from perdure.llm.structured import AnswerShape
from perdure.llm.usage import PriceTable, UsageLimits
from perdure.tools.toolbox import Toolbox

OnMessage: TypeAlias = Literal["queue", "steer", "reject", "interrupt"]
"""What a message means that arrives while a turn runs: run after it, reach it, be refused, or replace it."""


class TurnAgent(Protocol):
    """The declaration of an agent, as far as its turns depend on it. Read anew at each decision."""

    @property
    def name(self) -> str:
        """As registered."""
        ...

    @property
    def instructions(self) -> str:
        """The system message; empty for none."""
        ...

    @property
    def toolbox(self) -> Toolbox:
        """What the model may call."""
        ...

    @property
    def shape(self) -> AnswerShape[Any] | None:
        """What the answer must look like; None: text."""
        ...

    @property
    def on_message(self) -> OnMessage:
        """The policy for a second message."""
        ...

    @property
    def max_steps(self) -> int:
        """Model calls in one turn."""
        ...

    @property
    def limits(self) -> UsageLimits:
        """Tokens and cost in one turn."""
        ...

    @property
    def prices(self) -> PriceTable:
        """For the cost limit."""
        ...

    @property
    def approval_s(self) -> float:
        """How long a person has to approve a call."""
        ...

    @property
    def context_messages(self) -> int:
        """Newest messages kept and shown to the model, in whole exchanges."""
        ...

    @property
    def temperature(self) -> float | None:
        """None: the model's own."""
        ...

    @property
    def wait_for_model(self) -> bool:
        """Whether a turn waits for a model that stays unavailable, rather than fails."""
        ...
