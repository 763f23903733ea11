"""Endings that nobody wanted: logged once, and visible in the run."""

from __future__ import annotations

from perdure.errors import PerdureError
from perdure.observability.logs import get_logger
from perdure.run.event import Closed
from perdure.run.kind import Action
from perdure.types import SubjectId

log = get_logger(__name__)


def parked(subject: SubjectId, run: int, claims: int) -> Closed:
    """A run that was claimed again and again without progress kills its drivers: stop it visibly."""
    message = f"the run was taken over {claims} times without progress and is parked; see the logs"
    log.error("run_parked", code="poison", subject=subject, run=run, claims=claims)
    return Closed(run, "failed", {"error": {"code": "poison", "message": message}})


def failed(subject: SubjectId, action: Action, error: BaseException) -> Closed:
    """An action raised what no kind expects: its run ends, the driver goes on."""
    log.failure("action_failed", error, subject=subject, action=action.name, key=action.key)
    message = f"{action.name}: {type(error).__name__}: {error}"
    code = error.code if isinstance(error, PerdureError) else "internal"
    return Closed(action.run, "failed", {"error": {"code": code, "message": message}})
