"""What a service says about itself to others."""

from __future__ import annotations

from importlib.metadata import version

from perdure.agent.agent import DurableAgent
from perdure.serving.service import Service
from perdure.types import Json, JsonObject


def card(service: Service) -> JsonObject:
    """App-id, version, agents with their tools, pipelines, steps by agent. The instructions stay inside."""
    agents: list[Json] = [_agent(agent) for agent in service.turns.agents.values()]
    return {
        "app_id": service.app_id,
        "version": version("perdure"),
        "agents": agents,
        "pipelines": list[Json](service.pipelines),
        "steps": {agent: list[Json](server.handlers) for agent, server in service.steps.items()},
    }


def _agent(agent: DurableAgent) -> JsonObject:
    tools: list[Json] = [
        {"name": tool.name, "description": tool.description, "effect": str(tool.effect), "schema": tool.schema}
        for tool in agent.tools
    ]
    return {
        "name": agent.name,
        "role": agent.role,
        "goal": agent.goal,
        "description": agent.description,
        "tools": tools,
    }
