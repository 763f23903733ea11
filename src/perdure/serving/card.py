"""What a service says about itself to others."""

from __future__ import annotations

from importlib.metadata import version

from perdure.agent.card import card_of
from perdure.serving.service import Service
from perdure.types import Json, JsonObject


def card(service: Service) -> JsonObject:
    """App-id, version, a card for each agent, pipelines, steps by agent. Instructions stay inside."""
    agents: list[Json] = [
        card_of(agent, service.app_id).model_dump(mode="json") for agent in service.turns.agents.values()
    ]
    return {
        "app_id": service.app_id,
        "version": version("perdure"),
        "agents": agents,
        "pipelines": list[Json](service.pipelines),
        "steps": {agent: list[Json](server.handlers) for agent, server in service.steps.items()},
    }
