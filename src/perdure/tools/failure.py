"""The two ways in which a tool call is more than a result."""

from __future__ import annotations

from perdure.errors import Failed


class EndTurn(Failed):
    """Raise it in a tool to end the turn with this failure instead of telling the model."""

    def __init__(self, message: str, code: str = "turn_ended_by_tool", **details: object) -> None:
        super().__init__(code, message, **details)

    def __reduce__(self) -> tuple[object, ...]:
        return (_end_turn, (self.message, self.code, self.details))


def _end_turn(message: str, code: str, details: dict[str, object]) -> EndTurn:
    return EndTurn(message, code, **details)


class ToolTimedOut(Failed):
    """The tool did not return within its limit: whether its effect happened is unknown (code `tool_timed_out`)."""
