"""What an agent says about itself to others."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from perdure.agent.agent import DurableAgent

CardName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class ToolCard(BaseModel):
    """A tool; `parameters` is the JSON schema of its arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    effect: str = ""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)


class AgentCard(BaseModel):
    """Who an agent is, what it can do, and at which app it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: CardName
    app_id: Annotated[str, Field(min_length=1, max_length=256)]
    role: str = ""
    description: str = ""
    capabilities: tuple[str, ...] = ()
    tools: tuple[ToolCard, ...] = ()
    version: str = ""


def card_of(agent: DurableAgent, app_id: str, *capabilities: str) -> AgentCard:
    """The card of a declared agent. Its instructions stay inside; its tools count as capabilities, too."""
    tools = tuple(
        ToolCard(name=tool.name, description=tool.description, effect=str(tool.effect), parameters=tool.schema)
        for tool in agent.tools
    )
    return AgentCard(
        name=agent.name,
        app_id=app_id,
        role=agent.role,
        description=agent.description,
        capabilities=(*capabilities, *(tool.name for tool in tools)),
        tools=tools,
        version=version("perdure"),
    )
