"""The service under test: agents on models behind components of its sidecar, and on one asked directly."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from perdure import App, DurableAgent, tool


class Leg(BaseModel):
    """One part of a journey."""

    city: str
    nights: int


class Journey(BaseModel):
    """Where to, and for how long."""

    traveller: str
    legs: list[Leg]
    note: str | None = None


@tool(effect="read")
async def weather(city: str) -> str:
    """The weather in a city."""
    return f"{city}: rain"


@tool(effect="idempotent")
async def book(room: str, nights: int) -> dict[str, Any]:
    """Book a room."""
    return {"room": room, "nights": nights, "number": 17}


TOOLS = [weather, book]

app = App(
    agents=[
        DurableAgent("desk", instructions="Be brief.", model="component:chat", tools=TOOLS),
        DurableAgent("planner", model="component:chat", output_type=Journey),
        DurableAgent("careful", model=["component:gone", "component:chat"], tools=TOOLS),
        DurableAgent("alone", model="component:gone"),
        DurableAgent("raw", model="component:raw", tools=TOOLS),
        DurableAgent("direct", instructions="Be brief.", model="openai:direct-model", tools=TOOLS),
        DurableAgent("direct_planner", model="openai:direct-model", output_type=Journey),
    ]
)
