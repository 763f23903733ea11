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


def with_bytecode(env: dict[str, str]) -> dict[str, str]:
    """`env` for services that are back quickly after a kill: half of a start without bytecode is compiling.

    Who forbids bytecode in the source folders (PYTHONDONTWRITEBYTECODE) has it in the cache instead.
    """
    if not env.get("PYTHONDONTWRITEBYTECODE"):
        return env
    allowed = {key: value for key, value in env.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {"PYTHONPYCACHEPREFIX": str(cache_root() / "bytecode"), **allowed}


def cache_root() -> Path:
    """Where a user's programs keep what can be made again: `$XDG_CACHE_HOME/perdure`, else `~/.cache/perdure`."""
    configured = inherited().get("XDG_CACHE_HOME", "")
    return (Path(configured) if configured else Path.home() / ".cache") / "perdure"
