"""What the tests on whole services share."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator

import httpx2
import pytest


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """A client for many requests at once."""
    async with httpx2.AsyncClient(timeout=20, limits=httpx2.Limits(max_connections=200)) as client:
        yield client


@pytest.fixture
def kills() -> int:
    """How many processes a chaos test kills."""
    return int(os.environ.get("PERDURE_CHAOS_KILLS", "4"))


@pytest.fixture
def dice() -> random.Random:
    """Chance that can be repeated with PERDURE_CHAOS_SEED; a test that fails shows the seed."""
    seed = os.environ.get("PERDURE_CHAOS_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"PERDURE_CHAOS_SEED={seed}")  # noqa: T201 - shown by pytest when the test fails
    return random.Random(seed)
