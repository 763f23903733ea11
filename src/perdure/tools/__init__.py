"""Tools: functions that a model may call, with what they do to the world declared."""

from perdure.effect import Doubt, Effect
from perdure.tools.arguments import ParsedCall, ProblemKind, ToolProblem
from perdure.tools.context import ToolContext
from perdure.tools.failure import EndTurn, ToolTimedOut
from perdure.tools.reconciled import Reconciled, ReconciledAs
from perdure.tools.result import ToolResult
from perdure.tools.tool import Tool, tool
from perdure.tools.toolbox import Toolbox

__all__ = [
    "Doubt",
    "Effect",
    "EndTurn",
    "ParsedCall",
    "ProblemKind",
    "Reconciled",
    "ReconciledAs",
    "Tool",
    "ToolContext",
    "ToolProblem",
    "ToolResult",
    "ToolTimedOut",
    "Toolbox",
    "tool",
]
