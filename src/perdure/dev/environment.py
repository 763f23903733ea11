"""What the surrounding shell gives to the processes that the platform starts.

Settings configure perdure; this is only the environment that children inherit, and the two
folders that every Unix program derives from it.
"""

from __future__ import annotations

import os
from pathlib import Path


def inherited() -> dict[str, str]:
    """A copy of this process's environment, to hand on to a child."""
    return dict(os.environ)  # noqa: TID251  # handed on whole to other programs, not read as configuration


def cache_root() -> Path:
    """Where a user's programs keep what can be made again: `$XDG_CACHE_HOME/perdure`, else `~/.cache/perdure`."""
    configured = inherited().get("XDG_CACHE_HOME", "")
    return (Path(configured) if configured else Path.home() / ".cache") / "perdure"
