"""Turns of one agent as a kind of run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import orjson
from pydantic import TypeAdapter

from perdure.clock import Clock
from perdure.llm.model import Model
from perdure.observability.metrics import Metrics
from perdure.observability.tracing import Tracer
from perdure.run.control import Control, Position, RunInfo
from perdure.run.event import Event, EventCodec, Settled
from perdure.run.kind import Action, Doing, Verdict
from perdure.turn.decide import decide
from perdure.turn.describe import describe
from perdure.turn.do import Effects
from perdure.turn.events import OWN
from perdure.turn.fold import FOLD_VERSION, fold
from perdure.turn.rules import TurnAgent, TurnDefaults, TurnRules
from perdure.turn.state import SessionState
from perdure.types import JsonObject

FAMILY = "turn"


class TurnKind:
    """`run.kind.Kind` for the turns of `agent`; register it under `.name`."""

    def __init__(
        self,
        agent: TurnAgent,
        model: Model,
        *,
        clock: Clock,
        defaults: TurnDefaults | None = None,
        tracer: Tracer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.rules = TurnRules.of(agent, defaults)
        self.name = f"{FAMILY}/{agent.name}"
        self.version = f"{FOLD_VERSION}.{self.rules.context_messages}"
        self.codec = codec()
        self._effects = Effects(self.rules, model, clock, tracer or Tracer(), metrics)

    def initial(self) -> SessionState:
        return SessionState()

    def fold(self, state: SessionState, event: Event, at: Position) -> SessionState:
        return fold(state, event, at, limit=self.rules.context_messages)

    def decide(self, state: SessionState, control: Control) -> Verdict:
        return decide(self.rules, state, control)

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        return await self._effects.do(action, doing)

    async def reconcile(self, action: Action, doing: Doing) -> Settled | bool | None:
        return await self._effects.reconcile(action, doing)

    def ended(self, run_id: str, info: RunInfo) -> None:
        self._effects.ended(run_id, info)

    def dump(self, state: SessionState) -> bytes:
        return orjson.dumps(state)

    def load(self, data: bytes) -> SessionState:
        return _states().validate_json(data)

    def describe(self, state: SessionState, control: Control, run: int) -> JsonObject:
        return describe(state, control, run, self.rules.shape)


@cache
def codec() -> EventCodec:
    """Between the JSON of a session's commits and events; building it takes some milliseconds."""
    return EventCodec(OWN)


@cache
def _states() -> TypeAdapter[SessionState]:
    return TypeAdapter(SessionState)
