"""What happens in a pipeline run beside what every run has. Names and fields, once written, keep their meaning.

Decisions are recorded, not computed again: changing a graph or a delay leaves the runs in flight as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FAMILY = "pipeline"
"""What the keys of all pipeline kinds begin with."""


@dataclass(frozen=True, slots=True)
class StepReady:
    """All that the step depends on is there. The commit of this event names the step's key."""

    run: int
    step: str
    t: Literal["step_ready"] = "step_ready"


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """The step never runs in this run: `because` had no output for it."""

    run: int
    step: str
    because: str
    t: Literal["step_skipped"] = "step_skipped"


@dataclass(frozen=True, slots=True)
class RetryPlanned:
    """The step failed and begins attempt `attempt` at the moment `due` (RFC 3339)."""

    run: int
    step: str
    attempt: int
    due: str
    t: Literal["retry_planned"] = "retry_planned"


@dataclass(frozen=True, slots=True)
class StepGaveUp:
    """The step failed for good, and the run with it."""

    run: int
    step: str
    code: str
    message: str
    t: Literal["step_gave_up"] = "step_gave_up"


OWN: tuple[type, ...] = (StepReady, StepSkipped, RetryPlanned, StepGaveUp)
