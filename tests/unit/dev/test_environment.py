"""What children inherit."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.dev.environment import cache_root, with_bytecode


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`XDG_CACHE_HOME` is honoured; without it the cache is in the usual place."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_root() == Path("/elsewhere/perdure")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_root() == Path.home() / ".cache" / "perdure"


def test_services_have_bytecode_even_where_the_sources_must_stay_clean() -> None:
    """A forbidden `__pycache__` is replaced by a folder in the cache; otherwise nothing changes."""
    assert with_bytecode({"A": "1"}) == {"A": "1"}
    moved = with_bytecode({"A": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    assert moved == {"A": "1", "PYTHONPYCACHEPREFIX": str(cache_root() / "bytecode")}
