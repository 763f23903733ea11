"""The schedules that `Jobs` understands."""

from __future__ import annotations

import re

from perdure.errors import Invalid

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


def every_seconds(every: str) -> float:
    """Seconds between the ticks of `@every 30s` (also `1m30s`, `500ms`, `2h`). Raises: Invalid."""
    text = every.removeprefix("@every ").strip()
    seconds = sum(float(number) * UNITS_S[unit] for number, unit in PART.findall(text))
    if not every.startswith("@every ") or PART.sub("", text) or seconds <= 0:
        raise Invalid("schedule_unknown", f"schedule {every!r} is not understood; write for example '@every 30s'")
    return seconds
