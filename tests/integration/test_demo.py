"""The demonstration keeps its promise and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.sidecar, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]


def test_a_turn_and_a_sensor_run_survive_the_kills_of_the_demonstration(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perdure.cli.main", "demo", "--home", str(tmp_path / "demo")]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.count("kill -9") == 5
    assert "bookings of this turn in bookings.jsonl: 1 (promised: 1)" in shown.stdout
    assert "the promise was kept" in shown.stdout
    assert not (tmp_path / "demo" / "dev.json").exists()
