"""Events that every kind of run shares, and the codec between events and the JSON of a commit.

An event is a fact in the past tense. Kinds add their own; a name, once written, keeps its meaning
for ever, and a new field has a default, so that old logs stay readable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from perdure.errors import Broken
from perdure.types import JsonObject


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run begins. Its number is the number of the commit that holds this event.

    `kind` is the key under which the service registered its kind (`turn/assistant`); `payload` is what
    that kind was asked to do; `key` and `digest` (of the payload) make asking again join the same run.
    """

    kind: str
    payload: JsonObject
    key: str = ""
    digest: str = ""
    by: str = ""
    trace: str = ""
    t: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True)
class Closed:
    """A run ended; `status` is done, failed or cancelled, and stays so."""

    run: int
    status: Literal["done", "failed", "cancelled"]
    result: JsonObject = field(default_factory=dict)
    t: Literal["closed"] = "closed"


@dataclass(frozen=True, slots=True)
class Claimed:
    """The commit's driver owns the subject at the commit's epoch."""

    slot: str
    t: Literal["claimed"] = "claimed"


@dataclass(frozen=True, slots=True)
class Released:
    """The driver gave the subject up in good order; anybody may claim it."""

    why: str
    t: Literal["released"] = "released"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing to do until one of `on` happens or a timer is due; nobody drives meanwhile."""

    run: int
    on: tuple[str, ...]
    until: str = ""
    timers: tuple[tuple[str, str], ...] = ()
    t: Literal["waiting"] = "waiting"


@dataclass(frozen=True, slots=True)
class Hosted:
    """Host `{run id}-{generation}` keeps this run alive from now on."""

    run: int
    generation: int
    t: Literal["hosted"] = "hosted"


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The moment named by an earlier wait has come."""

    name: str
    t: Literal["timer_fired"] = "timer_fired"


@dataclass(frozen=True, slots=True)
class Reserved:
    """An effect may start now, within the start-by time, at this fence; the key stays across attempts."""

    key: str
    name: str
    digest: str
    attempt: int
    effect: str
    t: Literal["reserved"] = "reserved"


@dataclass(frozen=True, slots=True)
class Settled:
    """An effect's outcome. `unknown`: nobody can say whether it happened."""

    key: str
    content: str
    ok: bool = True
    unknown: bool = False
    t: Literal["settled"] = "settled"


@dataclass(frozen=True, slots=True)
class Doubted:
    """A reserved effect was cut (crash, time limit, cancellation) before its outcome was known."""

    key: str
    why: str
    t: Literal["doubted"] = "doubted"


@dataclass(frozen=True, slots=True)
class Unreconciled:
    """The target could not say whether the effect happened; the declared policy decides."""

    key: str
    t: Literal["unreconciled"] = "unreconciled"


@dataclass(frozen=True, slots=True)
class NotHappened:
    """The target says that the effect did not happen: it may be reserved again."""

    key: str
    t: Literal["not_happened"] = "not_happened"


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """A person must decide about exactly these arguments (`digest`) until that moment."""

    run: int
    call: str
    name: str
    digest: str
    arguments: str
    until: str = ""
    why: str = "tool"
    t: Literal["approval_asked"] = "approval_asked"


@dataclass(frozen=True, slots=True)
class Approved:
    """Covers one call with exactly these arguments; the reservation consumes it."""

    call: str
    digest: str
    by: str
    t: Literal["approved"] = "approved"


@dataclass(frozen=True, slots=True)
class Denied:
    """The call will not run; the model is told why."""

    call: str
    by: str
    reason: str = ""
    t: Literal["denied"] = "denied"


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """No new action starts in this run until it is resumed."""

    run: int
    by: str = ""
    t: Literal["pause_asked"] = "pause_asked"


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Ends a pause."""

    run: int
    by: str = ""
    t: Literal["resume_asked"] = "resume_asked"


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The run ends as cancelled as soon as its actions have stopped."""

    run: int
    reason: str
    by: str = ""
    t: Literal["cancel_asked"] = "cancel_asked"


@dataclass(frozen=True, slots=True)
class Signalled:
    """A named message from outside; the kind says what it means."""

    run: int
    name: str
    payload: JsonObject
    id: str = ""
    by: str = ""
    t: Literal["signalled"] = "signalled"


@dataclass(frozen=True, slots=True)
class Steered:
    """A user's word that reaches the model before its next call. With `key` and `digest` as in `Accepted`."""

    run: int
    text: str
    by: str = ""
    key: str = ""
    digest: str = ""
    t: Literal["steered"] = "steered"


Event: TypeAlias = Any
"""A frozen dataclass with a literal `t`: one of `SHARED`, or one of the kind's own."""

SHARED: tuple[type, ...] = (
    Accepted,
    Closed,
    Claimed,
    Released,
    Waiting,
    Hosted,
    TimerFired,
    Reserved,
    Settled,
    Doubted,
    Unreconciled,
    NotHappened,
    ApprovalAsked,
    Approved,
    Denied,
    PauseAsked,
    ResumeAsked,
    CancelAsked,
    Signalled,
    Steered,
)


class EventCodec:
    """From the JSON objects of a commit to typed events. Writing needs no codec: events are dataclasses."""

    def __init__(self, own: Iterable[type] = ()) -> None:
        union = reduce(or_, (*SHARED, *own))
        self._adapter: TypeAdapter[Event] = TypeAdapter(Annotated[union, Field(discriminator="t")])  # type: ignore[arg-type]  # a union built at run time has no static form

    def decode(self, objects: Sequence[JsonObject]) -> tuple[Event, ...]:
        """The events. Raises: Broken (`event_unknown`): a newer release wrote this log; it is not driven here."""
        try:
            return tuple([self._adapter.validate_python(item) for item in objects])
        except ValidationError as error:
            raise Broken(
                "event_unknown",
                "the log holds an event that this release cannot read; run the release that wrote it",
                problems=str(error),
            ) from error
