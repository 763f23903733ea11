"""Seconds and counts of runs and replicas."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DriveLimits:
    """Seconds and counts of one drive; see `Settings.run` for the reasons."""

    host_after_s: float = 5.0
    start_by_s: float = 2.0
    max_claims: int = 20
    shutdown_s: float = 10.0
    retry_s: float = 0.05
    retry_max_s: float = 5.0
    pace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunLimits(DriveLimits):
    """Seconds and counts of a replica; the reasons stand with the settings of the same names."""

    poll_s: float = 1.0
    beat_s: float = 2.0
    stale_s: float = 10.0
    max_active_runs: int = 1000
    host_rounds: int = 50
    sweep_every_s: int = 25
    overdue_s: float = 60.0
    """How late a host may wake before its timer counts as lost: longer than any busy scheduler takes."""
    cache_subjects: int = 256
