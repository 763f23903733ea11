"""Whether model calls may leave the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from perdure.errors import Refused

_forbidden: ContextVar[bool] = ContextVar("perdure_outside_calls_forbidden", default=False)


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """Asked before each model call that would leave the process (to a sidecar or to a provider)."""

    allow_outside: bool = True

    def check(self, model: str) -> None:
        """Raises: Refused (code `model_calls_forbidden`) when such calls are switched off here or in the context."""
        if self.allow_outside and not _forbidden.get():
            return
        by = "by the current context" if self.allow_outside else "by the setting PERDURE_LLM__ALLOW_OUTSIDE=false"
        raise Refused(
            "model_calls_forbidden",
            f"a call to model {model!r} would leave the process, which is forbidden {by}; "
            "use a scripted: or a function model",
            model=model,
        )


@contextmanager
def forbid_outside_calls() -> Iterator[None]:
    """Within it, and in every task started within it, no model call may leave the process. For tests."""
    token = _forbidden.set(True)
    try:
        yield
    finally:
        _forbidden.reset(token)


@contextmanager
def allow_outside_calls() -> Iterator[None]:
    """The exception within `forbid_outside_calls`: a test that brings its own server. A policy still forbids."""
    token = _forbidden.set(False)
    try:
        yield
    finally:
        _forbidden.reset(token)
