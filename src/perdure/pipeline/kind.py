"""The runs of one pipeline as a kind of run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import orjson
from pydantic import TypeAdapter

from perdure.observability.tracing import Tracer
from perdure.pipeline.decide import StepAction, decide
from perdure.pipeline.describe import describe
from perdure.pipeline.do import Effects
from perdure.pipeline.events import FAMILY, OWN
from perdure.pipeline.fold import FOLD_VERSION, fold
from perdure.pipeline.graph import Graph
from perdure.pipeline.pipeline import Pipeline
from perdure.pipeline.remote import RemoteSteps
from perdure.pipeline.server import StepServer
from perdure.pipeline.state import PipelineState
from perdure.run.control import Control, Position, RunInfo
from perdure.run.event import Event, EventCodec, Settled
from perdure.run.kind import Action, Doing, Verdict
from perdure.sidecar.ports import Invoker
from perdure.types import JsonObject


class PipelineKind:
    """`run.kind.Kind` for the runs of `pipeline`; register it under `.name`. `here` handles the steps without an app.

    Raises: Invalid when the graph cannot be run.
    """

    def __init__(self, pipeline: Pipeline, *, here: StepServer, invoker: Invoker, tracer: Tracer | None = None) -> None:
        self.graph: Graph = pipeline.graph
        self.name = f"{FAMILY}/{pipeline.name}"
        self.version = FOLD_VERSION
        self.codec = codec()
        self._effects = Effects(pipeline.name, here, RemoteSteps(invoker), tracer or Tracer())

    def initial(self) -> PipelineState:
        return PipelineState()

    def fold(self, state: PipelineState, event: Event, at: Position) -> PipelineState:
        return fold(state, event, at)

    def decide(self, state: PipelineState, control: Control) -> Verdict:
        return decide(state, control)

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        return [await self._effects.step(_step(action), doing)]

    async def reconcile(self, action: Action, doing: Doing) -> Settled | bool | None:
        return await self._effects.reconcile(_step(action), doing)

    def ended(self, run_id: str, info: RunInfo) -> None:
        self._effects.ended(run_id, info)

    def dump(self, state: PipelineState) -> bytes:
        return orjson.dumps(state)

    def load(self, data: bytes) -> PipelineState:
        return _states().validate_json(data)

    def describe(self, state: PipelineState, control: Control, run: int) -> JsonObject:
        return describe(state, control, run)


def _step(action: Action) -> StepAction:
    if not isinstance(action, StepAction):
        raise TypeError(f"a pipeline has no action {type(action).__name__}")
    return action


@cache
def codec() -> EventCodec:
    """Between the JSON of a run's commits and events; building it takes some milliseconds."""
    return EventCodec(OWN)


@cache
def _states() -> TypeAdapter[PipelineState]:
    return TypeAdapter(PipelineState)
