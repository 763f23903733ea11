"""What a tool may know about the call it serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]


def _nobody_listens(_text: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Handed to a tool through a parameter annotated with this type; never part of the tool's schema."""

    key: str
    """Idempotency key: the same for every attempt of this call, different for every other call."""
    attempt: int = 1
    """1 for the first attempt."""
    fence: int = 0
    """Grows with every takeover of the run; a target that remembers the largest one can refuse a stale caller."""
    deadline: float | None = None
    """Seconds on the process's monotonic clock after which the result no longer matters; None: no limit."""
    session: str = ""
    run: str = ""
    caller: str = ""
    """The verified identity on whose behalf the turn runs."""
    progress: Progress = _nobody_listens
    """Say how far it is, for people who watch; lost without harm. May be called from a tool's thread."""
