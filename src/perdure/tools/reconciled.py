"""What became of an effect that was cut off, as far as its target can tell."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from perdure.errors import Invalid
from perdure.tools.result import ToolResult

Reconcile: TypeAlias = Callable[..., Any | Awaitable[Any]]
"""`reconcile(key)` or `reconcile(key, arguments)`: what the call with that key returned, or None if it never happened.

To say that it cannot tell, it raises.
"""


class ReconciledAs(StrEnum):
    """The three answers."""

    DONE = "done"
    NOT_DONE = "not_done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reconciled:
    """`result` is there when `DONE`; `reason` says why it is `UNKNOWN`."""

    state: ReconciledAs
    result: ToolResult | None = None
    reason: str = ""


def takes_arguments(tool: str, function: Reconcile) -> bool:
    """Whether `function` wants the call's arguments beside the key. Raises: Invalid (code `tool_reconcile_wrong`)."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind in positional]
    if len(parameters) not in (1, 2):
        raise Invalid(
            "tool_reconcile_wrong",
            f"reconcile of tool {tool!r} must take (key) or (key, arguments), it takes {len(parameters)} parameters",
            tool=tool,
        )
    return len(parameters) == 2
