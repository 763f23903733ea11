"""What the current piece of work is about: carried by every log line, and by calls to other services."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_EMPTY: Mapping[str, str] = MappingProxyType({})
_fields: ContextVar[Mapping[str, str]] = ContextVar("perdure_log_fields", default=_EMPTY)
_parent: ContextVar[str] = ContextVar("perdure_trace_parent", default="")

_TRACE_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Within it, log lines carry these fields (caller, session, run, …); inner ones win. Empty values are left out."""
    token = _fields.set({**_fields.get(), **{name: value for name, value in fields.items() if value}})
    try:
        yield
    finally:
        _fields.reset(token)


def log_fields() -> Mapping[str, str]:
    """The fields of the current context."""
    return _fields.get()


@contextmanager
def received_trace(trace_parent: str) -> Iterator[None]:
    """Within it, work belongs to the trace that a W3C `traceparent` names; a malformed or empty one is ignored."""
    if not is_trace_parent(trace_parent):
        yield
        return
    token = _parent.set(trace_parent)
    try:
        yield
    finally:
        _parent.reset(token)


def received_trace_parent() -> str:
    """The `traceparent` this work arrived with, or empty."""
    return _parent.get()


def is_trace_parent(text: str) -> bool:
    """Whether `text` is a `traceparent` as W3C Trace Context defines it."""
    return _TRACE_PARENT.fullmatch(text) is not None


def trace_id_of(trace_parent: str) -> str:
    """The trace's id: 32 hex digits, or empty."""
    return trace_parent[3:35]
