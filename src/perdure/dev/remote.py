"""Looking at and steering a platform that runs in another process, through its record and signals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from perdure.clock import SystemClock
from perdure.dev.probes import HttpProbe, Probe, ValkeyProbe
from perdure.dev.record import ProcessRecord, Record, alive, end_leftovers, read_record, remove_record
from perdure.errors import Failed, NotFound

Say = Callable[[str], None]
ASK_EVERY_S = 0.1
GONE_WITHIN_S = 60.0
AGAIN_WITHIN_S = 60.0


async def down(home: Path, say: Say) -> None:
    """End the platform of `home`; also what it left if it was killed itself. Not running is fine."""
    record = read_record(home)
    if record is None:
        say("nothing runs here")
        return
    if alive(record.supervisor, record.supervisor_mark):
        os.kill(record.supervisor, signal.SIGTERM)
        await _until(lambda: not alive(record.supervisor, record.supervisor_mark), GONE_WITHIN_S, "the platform ends")
    elif ended := end_leftovers(record):
        say(f"the platform had been killed; ended what it left: {', '.join(ended)}")
    if (left := read_record(home)) and left.supervisor == record.supervisor:
        remove_record(home)
    say("stopped; nothing is left running")


async def status(home: Path, show: Say) -> bool:
    """Show every process; whether all run and are ready."""
    record = _running(home)
    if record is None:
        show("not running; start it with `make run` or `perdure dev up`")
        return False
    show(f"{record.status} since {record.since}, process {record.supervisor}, Valkey on port {record.ports['valkey']}")
    missing = await asyncio.gather(*(_missing(record, item) for item in record.processes))
    for item, reason in zip(record.processes, missing, strict=True):
        restarts = f", restarted {item.starts - 1}x" if item.starts > 1 else ""
        port = _port(record, item.name)
        where = f"port {port}" if port else ""
        process = f"pid {item.pid}" if item.pid else "down"
        show(f"  {item.name:<26} {process:<12} {where:<11} {reason or 'ready'}{restarts}")
    return not any(missing)


async def logs(home: Path, name: str | None, lines: int, show: Say, *, follow: bool) -> None:
    """Show the last `lines` of one process or of all, and what comes after with `follow`."""
    folder = home / "logs"
    files = sorted(path for path in folder.glob("*.log") if not path.name.endswith(".previous.log"))
    chosen = [path for path in files if name is None or path.stem == name]
    if not chosen:
        known = ", ".join(path.stem for path in files) or "none yet; start it with `perdure dev up`"
        raise NotFound("log_unknown", f"no log of '{name or 'any process'}' in {folder}; there are: {known}")
    positions = {path: _tail(path, lines, show, labelled=len(chosen) > 1) for path in chosen}
    clock = SystemClock()
    while follow:
        await clock.sleep(ASK_EVERY_S)
        for path in chosen:
            positions[path] = _more(path, positions[path], show, labelled=len(chosen) > 1)


async def restart(home: Path, name: str, say: Say, *, kill: bool) -> None:
    """End process `name`; return when the platform has started it again and it is ready.

    Raises: NotFound when nothing runs or has that name, Failed when it does not come back.
    """
    record = _running(home)
    if record is None:
        raise NotFound("not_running", f"no platform runs in {home}; start it with `perdure dev up`")
    before = _process(record, name)
    if before.pid is None:
        say(f"{name} is down already; the platform starts it")
    else:
        os.killpg(before.pid, signal.SIGKILL if kill else signal.SIGTERM)

    def again() -> bool:
        now = _running(home)
        return now is not None and _process(now, name).starts > before.starts

    await _until(again, AGAIN_WITHIN_S, f"{name} is started again")
    clock = SystemClock()
    deadline = clock.monotonic() + AGAIN_WITHIN_S
    while missing := await _missing(record, _process(_running(home) or record, name)):
        if clock.monotonic() > deadline:
            raise Failed(
                "not_ready", f"{name} was started again but is not ready: {missing}; see `perdure dev logs {name}`"
            )
        await clock.sleep(ASK_EVERY_S)
    say(f"{name} is ready again, pid {_process(_running(home) or record, name).pid}")


def _running(home: Path) -> Record | None:
    record = read_record(home)
    return record if record is not None and alive(record.supervisor, record.supervisor_mark) else None


def _process(record: Record, name: str) -> ProcessRecord:
    for item in record.processes:
        if item.name == name:
            return item
    known = ", ".join(item.name for item in record.processes)
    raise NotFound("process_unknown", f"'{name}' does not run here; there are: {known}")


def _port(record: Record, name: str) -> int | None:
    if name.endswith(".sidecar"):
        return record.ports.get(f"{name.removesuffix('.sidecar')} http")
    return record.ports.get(name) or record.ports.get(f"{name} app")


async def _missing(record: Record, item: ProcessRecord) -> str:
    if item.pid is None:
        return "not running"
    port = _port(record, item.name)
    if port is None:
        return ""
    probe: Probe = HttpProbe(port, "/readyz")
    if item.name == "valkey":
        probe = ValkeyProbe(port)
    elif item.name in {"placement", "scheduler"}:
        probe = HttpProbe(record.ports[f"{item.name} health"], "/healthz")
    elif item.name.endswith(".sidecar"):
        probe = HttpProbe(port, "/v1.0/healthz/outbound")
    return await probe.ask()


async def _until(true: Callable[[], bool], within_s: float, what: str) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + within_s
    while not true():
        if clock.monotonic() > deadline:
            raise Failed(
                "too_slow", f"waited {within_s:g} s until {what}; look with `perdure dev status` and `perdure dev logs`"
            )
        await clock.sleep(ASK_EVERY_S)


def _tail(path: Path, lines: int, show: Say, *, labelled: bool) -> int:
    content = path.read_bytes()
    for line in content.decode(errors="replace").splitlines()[-lines:] if lines else []:
        show(f"{path.stem}: {line}" if labelled else line)
    return len(content)


def _more(path: Path, position: int, show: Say, *, labelled: bool) -> int:
    with path.open("rb") as source:
        if source.seek(0, os.SEEK_END) < position:
            position = 0  # a new platform began a new file
        source.seek(position)
        content = source.read()
    whole = content[: content.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        show(f"{path.stem}: {line}" if labelled else line)
    return position + len(whole)
