"""What a tool or a handler does to the world, and what happens when nobody knows whether it did."""

from __future__ import annotations

from enum import StrEnum


class Effect(StrEnum):
    """How often an action may happen. Undeclared means `ONCE`: the safe assumption."""

    READ = "read"
    """Changes nothing; repeated freely after a crash."""

    IDEMPOTENT = "idempotent"
    """Changes something, but the target recognises the key; repeated after a crash with the same key."""

    ONCE = "once"
    """Must not happen twice; reserved before it runs, never silently repeated."""


class Doubt(StrEnum):
    """What to do with a `once` action that was reserved and never settled, and cannot be reconciled."""

    TELL = "tell"
    """The model is told that the outcome is unknown; the same call again becomes `ASK`."""

    ASK = "ask"
    """A person decides."""

    RETRY = "retry"
    """It runs again; the author accepts that it may happen twice."""
