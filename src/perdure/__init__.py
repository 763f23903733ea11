"""Durable agents beside a Dapr sidecar. The public names, nothing else."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.agent.agent import DurableAgent
    from perdure.effect import Doubt, Effect
    from perdure.errors import Broken, Busy, Conflict, Failed, Invalid, NotFound, PerdureError, Refused, Transient
    from perdure.llm import (  # fmt: skip
        FunctionModel,
        Model,
        ModelRequest,
        Price,
        PriceTable,
        ScriptedModel,
        allow_outside_calls,
        forbid_outside_calls,
    )
    from perdure.pipeline.context import StepContext
    from perdure.pipeline.pipeline import Pipeline, StepAgent
    from perdure.serving.app import App
    from perdure.settings import Settings, load_settings
    from perdure.sidecar.ports import ChatCall, ChatMessage, ChatReply
    from perdure.tools import EndTurn, Reconciled, Tool, ToolContext, tool

__all__ = [
    "App",
    "Broken",
    "Busy",
    "ChatCall",
    "ChatMessage",
    "ChatReply",
    "Conflict",
    "Doubt",
    "DurableAgent",
    "Effect",
    "EndTurn",
    "Failed",
    "FunctionModel",
    "Invalid",
    "Model",
    "ModelRequest",
    "NotFound",
    "PerdureError",
    "Pipeline",
    "Price",
    "PriceTable",
    "Reconciled",
    "Refused",
    "ScriptedModel",
    "Settings",
    "StepAgent",
    "StepContext",
    "Tool",
    "ToolContext",
    "Transient",
    "allow_outside_calls",
    "forbid_outside_calls",
    "load_settings",
    "tool",
]

_NAMES = {
    "perdure.agent.agent": "DurableAgent",
    "perdure.effect": "Doubt Effect",
    "perdure.errors": "Broken Busy Conflict Failed Invalid NotFound PerdureError Refused Transient",
    "perdure.llm": "FunctionModel Model ModelRequest Price PriceTable ScriptedModel "
    "allow_outside_calls forbid_outside_calls",
    "perdure.pipeline.context": "StepContext",
    "perdure.pipeline.pipeline": "Pipeline StepAgent",
    "perdure.serving.app": "App",
    "perdure.settings": "Settings load_settings",
    "perdure.sidecar.ports": "ChatCall ChatMessage ChatReply",
    "perdure.tools": "EndTurn Reconciled Tool ToolContext tool",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}


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
