"""The pipelines and step agents of one service, built, and how a run of them begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.clock import Clock
from perdure.errors import Invalid, NotFound
from perdure.observability.tracing import Tracer
from perdure.pipeline.accept import Order, accept
from perdure.pipeline.kind import PipelineKind
from perdure.pipeline.pipeline import Pipeline, StepAgent
from perdure.pipeline.server import StepServer
from perdure.run.runner import Accept, Runner
from perdure.sidecar.ports import Doors
from perdure.types import JsonObject


@dataclass(frozen=True, slots=True)
class PipelineWork:
    """What the pipelines and step agents of a service consist of, by name."""

    kinds: Mapping[str, PipelineKind]
    servers: Mapping[str, StepServer]

    async def drain(self, seconds: float) -> None:
        """Give handlers that others asked for that long to answer, then cut them."""
        for server in self.servers.values():
            await server.drain(seconds)


def pipeline_work(
    pipelines: Sequence[Pipeline], agents: Sequence[StepAgent], doors: Doors, store: str,
    *, clock: Clock, slot: str, life: str, prefix: str, tracer: Tracer,
) -> PipelineWork:  # fmt: skip
    """Everything, checked. Raises: Invalid when a graph cannot be run or a name is given twice."""

    def served(declared: Pipeline | StepAgent) -> StepServer:
        return StepServer(
            declared.name, declared.handlers, doors.stores[store], clock=clock, slot=slot, life=life, prefix=prefix
        )

    kinds: dict[str, PipelineKind] = {}
    for pipeline in pipelines:
        if pipeline.name in kinds:
            raise Invalid("pipeline_twice", f"two pipelines are called {pipeline.name!r}; rename one")
        kinds[pipeline.name] = PipelineKind(pipeline, here=served(pipeline), invoker=doors.invoker, tracer=tracer)
    servers: dict[str, StepServer] = {}
    for agent in agents:
        if agent.name in servers or agent.name in kinds:
            raise Invalid("agent_twice", f"two agents or pipelines are called {agent.name!r}; rename one")
        servers[agent.name] = served(agent)
    return PipelineWork(kinds, servers)


async def begin(
    runner: Runner,
    kinds: Mapping[str, PipelineKind],
    pipeline: str,
    input: JsonObject,
    key: str,
    *,
    by: str = "",
    trace: str = "",
) -> Accept:
    """A durable run of `pipeline`, or the one that `key` has begun.

    Raises: NotFound (`pipeline_unknown`), Conflict (`key_reused`), Busy.
    """
    kind = kinds.get(pipeline)
    if kind is None:
        known = ", ".join(sorted(kinds)) or "none"
        raise NotFound("pipeline_unknown", f"pipeline {pipeline!r} is unknown; registered: {known}")
    order = Order(kind.name, kind.graph, input, key, by, trace)
    return await runner.accept(kind.name, runner.subject(kind.name, key), lambda view: accept(order, view))
