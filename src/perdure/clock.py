"""Time and fresh ids. Nothing else in perdure reads the wall clock or makes ids, so tests can."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol

import uuid_utils


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC. For people and deadlines; never to order events."""
        ...

    def monotonic(self) -> float:
        """Seconds on this process's own monotonic clock; comparable only within the process."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller for that many seconds of `monotonic`."""
        ...


class Ids(Protocol):
    """Where fresh ids come from."""

    def new(self) -> str:
        """A new id, never given before: 32 hex digits, sortable by time."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemIds:
    """UUID version 7: unique without coordination, ordered by creation time."""

    def new(self) -> str:
        return uuid_utils.uuid7().hex


def rfc3339(moment: datetime) -> str:
    """`moment` (aware) as UTC text with `Z` and microseconds, e.g. `2026-01-31T08:00:00.000000Z` (ST-66)."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The aware moment that `rfc3339` wrote."""
    return datetime.fromisoformat(text)
