"""Schedules are read as the sidecar reads them, or refused."""

from __future__ import annotations

import pytest

from perdure.errors import Invalid
from perdure.sidecar.schedule import every_seconds


@pytest.mark.parametrize(
    ("every", "seconds"), [("@every 30s", 30), ("@every 1m30s", 90), ("@every 500ms", 0.5), ("@every 1.5h", 5400)]
)
def test_a_period_is_read_in_seconds(every: str, seconds: float) -> None:
    assert every_seconds(every) == pytest.approx(seconds)


@pytest.mark.parametrize("every", ["", "30s", "@every 30", "@every s", "@every 0s", "@daily", "@every 3s later"])
def test_anything_else_is_refused_with_an_example(every: str) -> None:
    with pytest.raises(Invalid, match="@every 30s"):
        every_seconds(every)
