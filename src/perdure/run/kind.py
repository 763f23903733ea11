"""What a kind of run must say: how events fold, what to do next, and how one effect is done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar

from perdure.effect import Doubt, Effect
from perdure.run.control import Control, Position, RunInfo
from perdure.run.event import Event, EventCodec, Settled
from perdure.types import JsonObject

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One effect that the kind wants done. Kinds subclass it with what `do` needs.

    `key` is `{run}.{commit}.{index}` of the decision, so it is the same after any crash. A `once` or
    `idempotent` action is reserved in the log first; `approval_s` asks a person first and waits so long; `limit_s`
    is how long it may be at work once begun (None: nobody knows).
    """

    key: str
    run: int
    name: str
    effect: Effect = Effect.READ
    doubt: Doubt = Doubt.TELL
    digest: str = ""
    arguments: str = ""
    approval_s: float | None = None
    reconcilable: bool = False
    limit_s: float | None = 0.0


@dataclass(frozen=True, slots=True)
class Act:
    """Record these decisions (no effect), or keep these actions going, and fire these timers when due."""

    record: tuple[Event, ...] = ()
    actions: tuple[Action, ...] = ()
    timers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done until something from `on` happens or a timer (name, RFC 3339) is due."""

    run: int
    on: tuple[str, ...]
    timers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """No run of the subject is open."""


Verdict: TypeAlias = Act | Wait | Done


@dataclass(frozen=True, slots=True)
class Doing:
    """What an effect is told about itself.

    `key` is the idempotency key, the same in every attempt; `fence` grows with every owner, so a target
    that remembers the highest fence can refuse a thawed driver. `cancel` is set when nobody wants the
    outcome any more.
    """

    key: str
    run_id: str
    attempt: int
    fence: int
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    trace: str = ""
    by: str = ""


class Kind(Protocol[S]):
    """A kind of run. `fold` and `decide` are pure: no clock, no random, no I/O."""

    name: str
    version: str
    """Of the fold: a snapshot written by another version is dropped and folded anew."""
    codec: EventCodec

    def initial(self) -> S:
        """The state before the first event."""
        ...

    def fold(self, state: S, event: Event, at: Position) -> S:
        """The state after `event`, shared events included."""
        ...

    def decide(self, state: S, control: Control) -> Verdict:
        """What to do now. Called again after every event; an action is asked for until its outcome is folded."""
        ...

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        """Do one effect and say what happened. Raises: Transient to be asked again later (same key)."""
        ...

    async def reconcile(self, action: Action, doing: Doing) -> Settled | bool | None:
        """What became of a cut effect: its outcome, False if it surely did not happen, None if nobody knows."""
        ...

    def ended(self, run_id: str, info: RunInfo) -> None:
        """Tell observers (metrics, traces) that the run is over. Called once, by the driver that closed it."""
        ...

    def dump(self, state: S) -> bytes:
        """The state as JSON, for a snapshot."""
        ...

    def load(self, data: bytes) -> S:
        """The state that `dump` wrote."""
        ...

    def describe(self, state: S, control: Control, run: int) -> JsonObject:
        """The run for people and HTTP. Raises: NotFound when the bounded state has forgotten what it must show."""
        ...
