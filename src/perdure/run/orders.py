"""What people and other services may tell a run, as pure decisions on its state."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.errors import Conflict, NotFound
from perdure.run.control import Approval, Control
from perdure.run.event import Accepted, Approved, Denied, Event


def _asked(control: Control, call: str) -> Approval:
    approval = control.approvals.get(call)
    if approval is None:
        waiting = [a.call for a in control.approvals.values() if a.status == "asked"]
        raise NotFound(
            "approval_unknown",
            f"no approval is asked for call {call!r}; asked for: {', '.join(waiting) or 'none'}",
        )
    return approval


def approve(control: Control, call: str, digest: str, by: str) -> Sequence[Event]:
    """The event that allows the call, or nothing if it is allowed already.

    Raises: NotFound (`approval_unknown`), Conflict (`approval_digest`, `approval_answered`).
    """
    approval = _asked(control, call)
    if approval.digest != digest:
        raise Conflict(
            "approval_digest",
            f"the digest is not that of the arguments shown for call {call}; read the turn again and decide anew",
            digest=approval.digest,
        )
    if approval.status == "approved":
        return ()
    _still_asked(approval)
    return [Approved(call, digest, by)]


def deny(control: Control, call: str, by: str, reason: str) -> Sequence[Event]:
    """The event that refuses the call, or nothing. Raises: NotFound, Conflict (`approval_answered`)."""
    approval = _asked(control, call)
    if approval.status == "denied":
        return ()
    _still_asked(approval)
    return [Denied(call, by, reason)]


def _still_asked(approval: Approval) -> None:
    if approval.status != "asked":
        raise Conflict(
            "approval_answered",
            f"call {approval.call} was {approval.status} already; an approval covers one call, once",
            status=approval.status,
        )


def concerns(event: Event, run: int, n: int) -> bool:
    """Whether an event of commit `n` is about run `run`."""
    if isinstance(event, Accepted):
        return n == run
    about = getattr(event, "run", None)
    if about is not None:
        return bool(about == run)
    key = getattr(event, "key", None) or getattr(event, "call", None)
    return isinstance(key, str) and key.startswith(f"{run}.")


def foreign(event: Event, run: int, n: int) -> bool:
    """Whether an event of commit `n` is about another run than `run`; what is about no run in particular is not."""
    if isinstance(event, Accepted):
        return n != run
    about = getattr(event, "run", None)
    if about is not None:
        return bool(about != run)
    key = getattr(event, "key", "") or getattr(event, "call", "")
    return bool(key) and not str(key).startswith(f"{run}.")
