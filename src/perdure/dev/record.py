"""`dev.json` in the platform's home: what runs, for the commands that look at it from another process."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "dev.json"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process. `started_mark` tells it from a later one with the same id."""

    name: str
    pid: int | None
    starts: int
    started_mark: str = ""
    ports: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """The whole platform. `status`: starting, ready, stopping."""

    supervisor: int
    supervisor_mark: str
    status: str
    since: str
    ports: dict[str, int]
    processes: tuple[ProcessRecord, ...]


def write_record(home: Path, record: Record) -> None:
    """Replace the record; a reader sees the old or the new one."""
    temporary = home / f"{FILE}.new"
    temporary.write_text(json.dumps(asdict(record), indent=1))
    temporary.replace(home / FILE)


def read_record(home: Path) -> Record | None:
    """The record, or None when no platform left one."""
    try:
        document = json.loads((home / FILE).read_text())
    except FileNotFoundError:
        return None
    processes = tuple(ProcessRecord(**item) for item in document.pop("processes"))
    return Record(processes=processes, **document)


def remove_record(home: Path) -> None:
    """Forget the platform."""
    (home / FILE).unlink(missing_ok=True)


def mark(pid: int) -> str:
    """What tells a running process from a later one with the same id; empty when it does not run or cannot be told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def alive(pid: int, known_mark: str) -> bool:
    """Whether exactly that process still runs."""
    if Path("/proc/self/stat").exists():
        return bool(known_mark) and mark(pid) == known_mark
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's: the id was given again
    return True


def end_leftovers(record: Record) -> list[str]:
    """Kill processes that outlived a supervisor which was killed itself; their names."""
    left = [item for item in record.processes if item.pid is not None and alive(item.pid, item.started_mark)]
    for item in left:
        if item.pid is not None:
            os.killpg(item.pid, signal.SIGKILL)
    return [item.name for item in left]
