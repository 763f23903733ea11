"""What running something twice would do to the world, and what to do when nobody knows if it ran."""

from __future__ import annotations

from enum import StrEnum


class Effect(StrEnum):
    """Declared by the author of a tool or handler; the default is the safe assumption, `once`."""

    READ = "read"
    """Changes nothing: runs again after a crash."""
    IDEMPOTENT = "idempotent"
    """Running again with the same key changes nothing more: runs again with the same key."""
    ONCE = "once"
    """Must not happen twice: reserved before, settled after, never silently repeated."""


class Doubt(StrEnum):
    """What follows when a `once` effect was reserved, is not settled, and cannot be reconciled."""

    TELL = "tell"
    """The model is told that the outcome is unknown."""
    ASK = "ask"
    """A human decides whether it runs again."""
    RETRY = "retry"
    """It runs again."""
