"""What the log of a pipeline run folds to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from perdure.messaging.message import Arrival
from perdure.pipeline.graph import StepSpec


class StepStatus(StrEnum):
    """How far a step is."""

    WAITING = "waiting"
    """For what it depends on."""
    READY = "ready"
    """To be started."""
    RUNNING = "running"
    STUMBLED = "stumbled"
    """The last attempt failed; what follows is not decided yet."""
    RETRYING = "retrying"
    """Waits for the moment of its next attempt."""
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


ENDED = frozenset({StepStatus.DONE, StepStatus.SKIPPED, StepStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an attempt failed; `retryable` says whether another one makes sense."""

    code: str
    message: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the run. `output` is JSON text, empty when there is none; moments are RFC 3339, empty when not yet.

    `key` names the current attempt in the log; `origin`, the key of the first one, is what the handler and the app
    that is called know the step by, whatever the attempt.
    """

    spec: StepSpec
    status: StepStatus = StepStatus.WAITING
    key: str = ""
    origin: str = ""
    attempt: int = 0
    calls: int = 0
    ready_at: str = ""
    started_at: str = ""
    ended_at: str = ""
    due: str = ""
    output: str = ""
    order: int = 0
    fault: Fault | None = None
    because: str = ""

    @property
    def arrival(self) -> Arrival:
        """The output as the message that dependents receive."""
        return Arrival(self.spec.name, self.output, self.origin, self.ended_at)


@dataclass(frozen=True, slots=True)
class PipelineState:
    """One run. `settled` counts the steps that finished, which gives outputs their order of arrival."""

    run: int = 0
    pipeline: str = ""
    input: str = "null"
    accepted_at: str = ""
    ended_at: str = ""
    settled: int = 0
    steps: Mapping[str, Step] = field(default_factory=dict)
