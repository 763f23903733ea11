"""Where the assistant keeps what it writes, and which model it asks."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(".perdure/assistant")
"""Notes and bookings: a place that a person can look at."""
