"""A running service, as routes and `app.local()` see it: one value that `wiring` builds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.clock import Clock, Ids
from perdure.observability.metrics import Metrics
from perdure.observability.tracing import Tracer
from perdure.run.runner import Runner
from perdure.serving.turns import Turns
from perdure.settings import Settings
from perdure.sidecar.ports import Doors

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from perdure.pipeline.kind import PipelineKind
    from perdure.pipeline.server import StepServer


@dataclass(frozen=True, slots=True)
class Service:
    """Everything of one replica. `draining` is set when it begins to stop: who waits is answered at once."""

    app_id: str
    settings: Settings
    clock: Clock
    ids: Ids
    doors: Doors
    runner: Runner
    turns: Turns
    metrics: Metrics
    tracer: Tracer
    registry: CollectorRegistry
    needs: frozenset[str] = frozenset()
    """Names of the stores without which nothing can be done."""
    pipelines: Mapping[str, PipelineKind] = field(default_factory=dict)
    steps: Mapping[str, StepServer] = field(default_factory=dict)
    draining: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Standing:
    """How far a service is, for its HTTP side: built (`service`), up, or why it is not."""

    service: Service | None = None
    up: bool = False
    reason: str = "it has just begun to start"
