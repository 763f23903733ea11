"""What the driver knows about a subject whatever its kind: owner, runs, effects, approvals, waits. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from perdure.run.event import (
    Accepted,
    ApprovalAsked,
    Approved,
    CancelAsked,
    Claimed,
    Closed,
    Denied,
    Doubted,
    Event,
    Hosted,
    NotHappened,
    PauseAsked,
    Released,
    Reserved,
    ResumeAsked,
    Settled,
    Signalled,
    Steered,
    TimerFired,
    Unreconciled,
    Waiting,
)
from perdure.types import JsonObject

KEYS_KEPT = 1024
"""Idempotency keys remembered per subject: newest first out. 1,024 hashes are 40 KB in a snapshot, which
must stay below 64; sessions with more keyed turns than that forget the oldest keys (README says so)."""

CLOSED_KEPT = 32
"""Closed runs whose outcome stays in memory; older ones are read from the log."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where an event stands: commit number, index within it, the commit's time."""

    n: int
    i: int
    at: str
    epoch: int = 0
    driver: str = ""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run of the subject."""

    n: int
    at: str
    key: str = ""
    status: str = "accepted"
    paused: bool = False
    cancel: str | None = None
    generation: int = 0
    by: str = ""
    trace: str = ""
    result: JsonObject = field(default_factory=dict)
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One effect that is reserved or in doubt."""

    key: str
    name: str
    digest: str
    effect: str
    attempt: int
    epoch: int
    driver: str
    doubt: str = ""
    unreconciled: bool = False
    slot: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """One question to a person. `status`: asked, approved, denied, expired, consumed."""

    call: str
    run: int
    name: str
    digest: str
    arguments: str
    until: str
    why: str
    status: str = "asked"
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What an idempotency key stands for."""

    run: int
    digest: str


@dataclass(frozen=True, slots=True)
class Control:
    """The fold of all shared events."""

    epoch: int = 0
    driver: str = ""
    slot: str = ""
    claims: int = 0
    open: Mapping[int, RunInfo] = field(default_factory=dict)
    closed: Mapping[int, RunInfo] = field(default_factory=dict)
    effects: Mapping[str, Entry] = field(default_factory=dict)
    approvals: Mapping[str, Approval] = field(default_factory=dict)
    keys: Mapping[str, KeyUse] = field(default_factory=dict)
    waiting: Waiting | None = None

    @property
    def current(self) -> RunInfo | None:
        """The oldest open run: runs of one subject follow one another."""
        return next(iter(self.open.values()), None)

    def run(self, n: int) -> RunInfo | None:
        """An open or recently closed run."""
        return self.open.get(n) or self.closed.get(n)


def fold_control(control: Control, event: Event, at: Position) -> Control:
    """The control state after `event`. Events of kinds count as progress and change nothing else."""
    folder = _FOLDERS.get(type(event))
    if folder is None:
        return replace(control, claims=0) if control.claims else control
    return folder(control, event, at)


def _accepted(c: Control, e: Accepted, at: Position) -> Control:
    info = RunInfo(n=at.n, at=at.at, key=e.key, by=e.by, trace=e.trace)
    return replace(c, open={**c.open, at.n: info}, keys=_used(c, e.key, at.n, e.digest))


def _used(c: Control, key: str, run: int, digest: str) -> Mapping[str, KeyUse]:
    if not key:
        return c.keys
    kept = list(c.keys.items())[-(KEYS_KEPT - 1) :]
    return {**dict(kept), key: KeyUse(run, digest)}


def _closed(c: Control, e: Closed, at: Position) -> Control:
    info = c.open.get(e.run)
    if info is None:
        return c
    still = {n: r for n, r in c.open.items() if n != e.run}
    done = replace(info, status=e.status, result=e.result, paused=False, ended=at.at)
    closed = dict(list(c.closed.items())[-(CLOSED_KEPT - 1) :])
    closed[e.run] = done
    mine = f"{e.run}."
    return replace(
        c,
        open=still,
        closed=closed,
        driver=c.driver if still else "",
        claims=0,
        waiting=None,
        effects={k: v for k, v in c.effects.items() if not k.startswith(mine)},
        approvals={k: v for k, v in c.approvals.items() if v.run != e.run},
    )


def _claimed(c: Control, e: Claimed, at: Position) -> Control:
    return replace(
        c, epoch=at.epoch, driver=at.driver, slot=e.slot, claims=c.claims + 1, waiting=None, open=_status(c, "running")
    )


def _status(c: Control, status: str) -> Mapping[int, RunInfo]:
    current = c.current
    if current is None or current.status == status:
        return c.open
    return {**c.open, current.n: replace(current, status=status)}


def _released(c: Control, e: Released, at: Position) -> Control:
    return replace(c, driver="", claims=0)


def _waiting(c: Control, e: Waiting, at: Position) -> Control:
    paused = c.open.get(e.run)
    status = "paused" if paused is not None and paused.paused else "waiting"
    return replace(c, driver="", claims=0, waiting=e, open=_status(c, status))


def _hosted(c: Control, e: Hosted, at: Position) -> Control:
    info = c.open.get(e.run)
    if info is None:
        return c
    return replace(c, open={**c.open, e.run: replace(info, generation=e.generation)})


def _timer(c: Control, e: TimerFired, at: Position) -> Control:
    call = e.name.removeprefix("approval:")
    asked = c.approvals.get(call)
    c = replace(c, claims=0, waiting=None)
    if asked is None or call == e.name or asked.status != "asked":
        return c
    return replace(c, approvals={**c.approvals, call: replace(asked, status="expired")})


def _reserved(c: Control, e: Reserved, at: Position) -> Control:
    entry = Entry(e.key, e.name, e.digest, e.effect, e.attempt, at.epoch, at.driver, slot=c.slot)
    approvals = c.approvals
    asked = approvals.get(e.key)
    if asked is not None:
        approvals = {**approvals, e.key: replace(asked, status="consumed")}
    # Not progress: an effect that kills its driver is reserved anew by each, and must be parked in the end.
    return replace(c, effects={**c.effects, e.key: entry}, approvals=approvals)


def _settled(c: Control, e: Settled, at: Position) -> Control:
    if e.key not in c.effects:
        return replace(c, claims=0) if c.claims else c
    return replace(c, effects={k: v for k, v in c.effects.items() if k != e.key}, claims=0)


def _doubted(c: Control, e: Doubted, at: Position) -> Control:
    entry = c.effects.get(e.key)
    if entry is None:
        return c
    return replace(c, effects={**c.effects, e.key: replace(entry, doubt=e.why)})


def _unreconciled(c: Control, e: Unreconciled, at: Position) -> Control:
    entry = c.effects.get(e.key)
    if entry is None:
        return c
    return replace(c, effects={**c.effects, e.key: replace(entry, unreconciled=True)})


def _not_happened(c: Control, e: NotHappened, at: Position) -> Control:
    return replace(c, effects={k: v for k, v in c.effects.items() if k != e.key})


def _asked(c: Control, e: ApprovalAsked, at: Position) -> Control:
    approval = Approval(e.call, e.run, e.name, e.digest, e.arguments, e.until, e.why)
    return replace(c, approvals={**c.approvals, e.call: approval}, claims=0)


def _approved(c: Control, e: Approved, at: Position) -> Control:
    asked = c.approvals.get(e.call)
    if asked is None or asked.digest != e.digest:
        return c  # it is for other arguments than those shown
    return _answered(c, e.call, "approved", e.by, "")


def _denied(c: Control, e: Denied, at: Position) -> Control:
    return _answered(c, e.call, "denied", e.by, e.reason)


def _answered(c: Control, call: str, status: str, by: str, reason: str) -> Control:
    asked = c.approvals.get(call)
    if asked is None or asked.status != "asked":
        return c
    answered = replace(asked, status=status, by=by, reason=reason)
    return replace(c, approvals={**c.approvals, call: answered}, waiting=None)


def _pause(c: Control, e: PauseAsked, at: Position) -> Control:
    return _flag(c, e.run, paused=True)


def _resume(c: Control, e: ResumeAsked, at: Position) -> Control:
    return _flag(c, e.run, paused=False)


def _flag(c: Control, run: int, *, paused: bool) -> Control:
    info = c.open.get(run)
    if info is None:
        return c
    return replace(c, open={**c.open, run: replace(info, paused=paused)}, waiting=None)


def _heard(c: Control, e: Signalled, at: Position) -> Control:
    return replace(c, waiting=None, claims=0)


def _steered(c: Control, e: Steered, at: Position) -> Control:
    return replace(c, waiting=None, claims=0, keys=_used(c, e.key, e.run, e.digest))


def _cancel(c: Control, e: CancelAsked, at: Position) -> Control:
    info = c.open.get(e.run)
    if info is None or info.cancel is not None:
        return c
    return replace(c, open={**c.open, e.run: replace(info, cancel=e.reason, paused=False)}, waiting=None)


_FOLDERS: dict[type, Callable[[Control, Any, Position], Control]] = {
    Accepted: _accepted,
    Closed: _closed,
    Claimed: _claimed,
    Released: _released,
    Waiting: _waiting,
    Hosted: _hosted,
    TimerFired: _timer,
    Reserved: _reserved,
    Settled: _settled,
    Doubted: _doubted,
    Unreconciled: _unreconciled,
    NotHappened: _not_happened,
    ApprovalAsked: _asked,
    Approved: _approved,
    Denied: _denied,
    PauseAsked: _pause,
    ResumeAsked: _resume,
    CancelAsked: _cancel,
    Signalled: _heard,
    Steered: _steered,
}
