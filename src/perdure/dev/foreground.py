"""`perdure dev up`: a platform in the foreground of a terminal, or detached from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perdure.clock import SystemClock
from perdure.dev import environment
from perdure.dev.platform import Platform
from perdure.dev.provision import ensure_runtime
from perdure.dev.record import read_record
from perdure.dev.topology import Replica
from perdure.errors import Failed

Say = Callable[[str], None]
ASK_EVERY_S = 0.1
TRY = "Book room Oslo for 2026-12-01. Note that the guest likes tea."
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Wish:
    """What to run, as `Platform` takes it. `services` None means all."""

    home: Path
    run_file: Path
    ports: int | Literal["auto"] | None
    services: Sequence[str] | None
    with_dapr_cli: bool = False


async def run(wish: Wish, say: Say) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP, also while starting; return when nothing is left."""
    started, ended = asyncio.Event(), asyncio.Event()
    work = asyncio.create_task(_serve(wish, say, started, ended))

    def end() -> None:
        if not ended.is_set():
            say("stopping")
            ended.set()
            if not started.is_set():
                work.cancel()

    loop = asyncio.get_running_loop()
    for number in ENDING:
        loop.add_signal_handler(number, end)
    with contextlib.suppress(asyncio.CancelledError):
        await work
    say("stopped; nothing is left running")


async def detach(arguments: Sequence[str], home: Path, say: Say) -> None:
    """Start `perdure dev up` with `arguments` in a session of its own; return when it is ready.

    Raises: Failed (code `up_failed`) with what it said when it ended instead.
    """
    await asyncio.to_thread(home.mkdir, parents=True, exist_ok=True)
    log = home / "up.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "perdure.cli.main", "dev", "up", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    ended = asyncio.create_task(process.wait())
    clock = SystemClock()
    while not ended.done():
        record = read_record(home)
        if record is not None and record.supervisor == process.pid and record.status == "ready":
            ended.cancel()
            say(log.read_text().rstrip())
            return
        await clock.sleep(ASK_EVERY_S)
    raise Failed("up_failed", f"the platform did not start: {log.read_text().strip().removeprefix('error: ')}")


async def _serve(wish: Wish, say: Say, started: asyncio.Event, ended: asyncio.Event) -> None:
    runtime = await ensure_runtime(environment.cache_root(), say)
    platform = Platform(
        wish.home,
        run_file=wish.run_file,
        ports=wish.ports,
        services=wish.services,
        runtime=runtime,
        with_dapr_cli=wish.with_dapr_cli,
        say=say,
    )
    say("starting Valkey, placement, scheduler" + ("" if wish.services == [] else " and the services"))
    async with platform:
        started.set()
        say(_what_next(platform))
        await ended.wait()


def _what_next(platform: Platform) -> str:
    """Three commands to copy, for a person who sees this for the first time."""
    replicas = platform.topology.replicas
    by_name = {replica.name: replica for replica in replicas}
    commands: list[str] = []
    if assistant := by_name.get("assistant"):
        commands.append(_post(assistant, "/turns", {"text": TRY, "session": "first"}))
    if orchestrator := by_name.get("orchestrator"):
        commands.append(_post(orchestrator, "/runs", {"pipeline": "sensors", "wait_s": 30}))
    perdure = _shown(Path(sys.executable).with_name("perdure"))
    commands.append(f"{perdure} dev restart {replicas[0].name if replicas else 'scheduler'} --kill")
    commands += [f"{perdure} dev status", f"{perdure} dev logs --follow"]
    shown = "\n".join(f"  {command}" for command in commands[:3])
    return f"\nready. Ctrl-C ends everything. Three things to try in another terminal:\n\n{shown}\n"


def _post(replica: Replica, path: str, body: dict[str, str | int]) -> str:
    """Through the service's own sidecar, as another agent would call it."""
    url = f"{replica.dapr_url}/v1.0/invoke/{replica.app_id}/method{path}"
    return f"curl -s {url} -H 'content-type: application/json' -d '{json.dumps(body)}'"


def _shown(path: Path) -> str:
    """As short as it can be copied: relative to the folder that the person is in."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
