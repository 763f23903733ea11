"""How long what a former owner began may still be going on, and how long a target wants to be left alone. Pure."""

from __future__ import annotations

from perdure.errors import Transient
from perdure.run.control import Entry
from perdure.run.kind import Action

LONGEST_HINT_S = 60.0
"""A target that asks for more patience than this is asked again all the same."""


def possible_for(entry: Entry | None, action: Action, slot: str, life: str, start_by_s: float) -> float | None:
    """Seconds after a claim for which an older owner's call may still be at work; None when nobody can say.

    A former life of this slot is gone with its calls, unlike another replica, or another drive of this process
    (`life` begins the name of each of them).
    """
    if entry is None or (entry.slot == slot and not entry.driver.startswith(life)):
        return 0.0
    return None if action.limit_s is None else start_by_s + action.limit_s


def asked_to_wait(error: Transient) -> float:
    """Seconds after which the target wants to be asked again, as far as that is reasonable."""
    hint = error.details.get("retry_after_s")
    return min(float(hint), LONGEST_HINT_S) if isinstance(hint, int | float) else 0.0
