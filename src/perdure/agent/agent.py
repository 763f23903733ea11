"""The declaration of an agent: a name, a model, tools, and how its turns behave."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, cast, get_args

from perdure.errors import Invalid
from perdure.llm.spec import ModelSpec
from perdure.llm.structured import AnswerShape
from perdure.llm.usage import PriceTable
from perdure.tools.tool import Tool
from perdure.tools.toolbox import Toolbox
from perdure.turn.rules import OnMessage

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
"""Fits an app-id, a topic and a log line."""


class DurableAgent:
    """An agent whose turns survive the process. Constructing it does no I/O; an `App` serves it.

    `model` is `component:NAME`, `openai:NAME`, `scripted:SCRIPT`, a model, a function of the request, or several
    of these as a fallback chain. `output_type` is any type pydantic knows: the answer is then JSON of that shape.
    `on_message` says what a message means that arrives while a turn runs (`queue`, `steer`, `reject`, `interrupt`).

    What is None is left to the settings. Limits of one turn: `max_steps` model calls, `max_tokens` in and out
    together, `max_cost` in the currency of `prices`. `approval_s` is how many seconds a person has to approve a
    call, `context_messages` how many of the newest messages the model is shown, in whole exchanges. With
    `wait_for_model` a turn waits for a model that stays unavailable instead of failing.

    The parameters from `state_store_name` on describe the service around the agent: names of components and keys,
    the port, how failed work is repeated, how changes of its state are announced. Each is readable under its name.

    Raises: Invalid (codes `agent_name`, `agent_option`, `tool_duplicate`, `answer_type_wrong`).
    """

    def __init__(
        self,
        name: str,
        role: str = "",
        *,
        goal: str = "",
        instructions: str | Iterable[str] = "",
        model: ModelSpec | None = None,
        tools: Iterable[Tool[Any, Any] | Callable[..., Any]] = (),
        output_type: Any = None,
        on_message: OnMessage = "queue",
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_cost: Decimal | float | None = None,
        prices: PriceTable | None = None,
        temperature: float | None = None,
        approval_s: float | None = None,
        context_messages: int | None = None,
        wait_for_model: bool = False,
        description: str = "",
        state_store_name: str | None = None,
        state_key: str | None = None,
        state_partition: str | None = None,
        state_namespace: str | None = None,
        agents_registry_store_name: str | None = None,
        agents_registry_key: str | None = None,
        message_bus_name: str | None = None,
        service_port: int | None = None,
        max_retries: int | None = None,
        retry_delay: float | None = None,
        enable_transactions: bool = False,
        state_sync_events: bool = False,
        state_change_topic: str | None = None,
        async_state_updates: bool = False,
    ) -> None:
        self.name = _checked_name(name)
        self.role, self.goal, self.description = role, goal, description
        self.instructions = _instructions(role, goal, instructions)
        self.model = model
        self.toolbox = Toolbox(tools)
        self.output_type = output_type
        self.shape: AnswerShape[Any] | None = AnswerShape(output_type) if output_type is not None else None
        self.on_message = self._policy(on_message)
        self.max_steps = self._at_least("max_steps", max_steps, 1)
        self.max_tokens = self._at_least("max_tokens", max_tokens, 1)
        self.max_cost = None if max_cost is None else Decimal(str(self._above("max_cost", max_cost)))
        self.prices = prices
        self.temperature = temperature
        self.approval_s = self._above("approval_s", approval_s)
        self.context_messages = self._at_least("context_messages", context_messages, 1)
        self.wait_for_model = wait_for_model
        self.state_store_name, self.state_key = state_store_name, state_key
        self.state_partition, self.state_namespace = state_partition, state_namespace
        self.agents_registry_store_name, self.agents_registry_key = agents_registry_store_name, agents_registry_key
        self.message_bus_name = message_bus_name
        self.service_port = self._port(service_port)
        self.max_retries = self._at_least("max_retries", max_retries, 0)
        self.retry_delay = self._above("retry_delay", retry_delay)
        self.enable_transactions, self.async_state_updates = enable_transactions, async_state_updates
        self.state_sync_events, self.state_change_topic = state_sync_events, state_change_topic

    @property
    def tools(self) -> tuple[Tool[Any, Any], ...]:
        """What the model may call, in the order given."""
        return tuple(self.toolbox.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _policy(self, given: str) -> OnMessage:
        choices = get_args(OnMessage)
        if given not in choices:
            raise self._wrong("on_message", f"one of {', '.join(map(repr, choices))}", given)
        return cast(OnMessage, given)

    def _at_least(self, option: str, given: Any, least: int) -> Any:
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < least):
            raise self._wrong(option, f"a whole number from {least}", given)
        return given

    def _above(self, option: str, given: Any) -> Any:
        if given is not None and not given > 0:
            raise self._wrong(option, "above 0", given)
        return given

    def _port(self, given: int | None) -> int | None:
        if given is not None and not 0 < given < 65_536:
            raise self._wrong("service_port", "from 1 to 65535", given)
        return given

    def _wrong(self, option: str, wanted: str, given: object) -> Invalid:
        return Invalid("agent_option", f"agent {self.name!r}: {option} must be {wanted}; got {given!r}")


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Invalid(
            "agent_name",
            f"agent name {name!r} must begin with a letter and have 1 to 63 of A-Z a-z 0-9 _ -; choose another",
        )
    return name


def _instructions(role: str, goal: str, given: str | Iterable[str]) -> str:
    """The system message: role and goal, if given, before the instructions."""
    lines = [given] if isinstance(given, str) else list(given)
    if role:
        lines.insert(0, f"You are {role}.")
    if goal:
        lines.insert(1 if role else 0, f"Your goal: {goal}")
    return "\n".join(line for line in lines if line)
