"""Durable agents beside a Dapr sidecar."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.agent.agent import DurableAgent
    from perdure.effect import Doubt, Effect
    from perdure.errors import PerdureError
    from perdure.pipeline.pipeline import Pipeline, StepAgent
    from perdure.serving.app import App
    from perdure.settings import Settings, load_settings
    from perdure.tools import EndTurn, Reconciled, ToolContext, tool

__all__ = [
    "App",
    "Doubt",
    "DurableAgent",
    "Effect",
    "EndTurn",
    "PerdureError",
    "Pipeline",
    "Reconciled",
    "Settings",
    "StepAgent",
    "ToolContext",
    "load_settings",
    "tool",
]

_WHERE = {
    "App": "perdure.serving.app",
    "Doubt": "perdure.effect",
    "DurableAgent": "perdure.agent.agent",
    "Effect": "perdure.effect",
    "EndTurn": "perdure.tools",
    "PerdureError": "perdure.errors",
    "Pipeline": "perdure.pipeline.pipeline",
    "Reconciled": "perdure.tools",
    "Settings": "perdure.settings",
    "StepAgent": "perdure.pipeline.pipeline",
    "ToolContext": "perdure.tools",
    "load_settings": "perdure.settings",
    "tool": "perdure.tools",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import perdure` costs next to nothing."""
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
