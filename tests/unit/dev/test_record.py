"""What the platform leaves for the commands that look at it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.dev.record import (
    ProcessRecord,
    Record,
    alive,
    end_leftovers,
    mark,
    read_record,
    remove_record,
    write_record,
)

SLEEPER = (sys.executable, "-c", "import signal; signal.pause()")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def record(*processes: ProcessRecord) -> Record:
    return Record(1, "", "ready", "2026-01-01T00:00:00.000000Z", {"valkey": 1}, processes)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """It holds ports, processes and status; removed, there is none."""
    assert read_record(tmp_path) is None
    written = record(ProcessRecord("valkey", 7, 2, "x"), ProcessRecord("assistant", None, 1))
    write_record(tmp_path, written)
    assert read_record(tmp_path) == written
    remove_record(tmp_path)
    assert read_record(tmp_path) is None


def test_processes_that_outlived_a_killed_platform_are_ended(sleeper: subprocess.Popen[bytes]) -> None:
    """They are known by id and start."""
    left = ProcessRecord("assistant", sleeper.pid, 1, mark(sleeper.pid))
    assert end_leftovers(record(left, ProcessRecord("valkey", None, 1))) == ["assistant"]
    assert sleeper.wait(10) == -9
    assert end_leftovers(record(left)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="start times of processes are read from /proc")
def test_a_stranger_that_got_the_same_id_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    """An id that was given again belongs to somebody else."""
    assert end_leftovers(record(ProcessRecord("assistant", sleeper.pid, 1, "another start"))) == []
    assert alive(sleeper.pid, mark(sleeper.pid))
    assert not alive(sleeper.pid, "")
