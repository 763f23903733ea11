"""One process of the platform: started, watched, restarted when it dies, stopped with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from perdure.clock import Clock
from perdure.dev.commands import Command
from perdure.errors import Conflict, Failed

LAUNCHER = Path(__file__).with_name("launcher.py")

QUICK_DEATH_S = 2.0
"""A process that lived shorter than this counts as crashing, not as having been killed."""

CRASHES_TOLERATED = 5
LONGEST_PAUSE_S = 5.0
ASK_EVERY_S = 0.05
TAIL_LINES = 15


class Happening(StrEnum):
    """What a child reports."""

    STARTED = "started"
    DIED = "died"
    STOPPED = "stopped"


class Child:
    """Keeps the process of `command` running while it is wanted; its output goes to the file `log`."""

    def __init__(
        self,
        command: Command,
        log: Path,
        env: dict[str, str],
        clock: Clock,
        report: Callable[[Child, Happening, str], None],
        *,
        restart: bool,
    ) -> None:
        self.command = command
        self.log = log
        self.pid: int | None = None
        self.starts = 0
        self._env = {**env, **command.env}
        self._clock = clock
        self._report = report
        self._restart = restart
        self._wanted = asyncio.Event()
        self._alive = asyncio.Event()
        self._gone = asyncio.Event()
        self._crashes = 0
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Have the process running from now on; return once it exists. Raises: OSError when it cannot be started."""
        self._crashes = 0
        self._wanted.set()
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.command.name}")
        alive = asyncio.create_task(self._alive.wait())
        await asyncio.wait({alive, self._keeper}, return_when=asyncio.FIRST_COMPLETED)
        if self._keeper.done():
            alive.cancel()
            self._keeper.result()

    async def stop(self) -> None:
        """Ask it to end, insist after its grace, and return when it and its group are gone."""
        self._wanted.clear()
        gone = self._gone
        if self.pid is None:
            return
        if self.command.ends_its_own:
            os.kill(self.pid, signal.SIGTERM)
        else:
            self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a frozen process would never see the other one
        try:
            async with asyncio.timeout(self.command.grace_s):
                await gone.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await gone.wait()

    async def close(self) -> None:
        """Stop it for good."""
        try:
            await self.stop()
        finally:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.wait({self._keeper})

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """Signal the process and return its id when it is gone. Raises: Conflict when it does not run."""
        pid, gone = self.pid, self._gone
        if pid is None:
            raise Conflict("not_running", f"{self.command.name} is not running; start it first")
        self.signal(number)
        await gone.wait()
        return pid

    def signal(self, number: int) -> None:
        """Signal the process and everything it started; a process that just went is fine."""
        if self.pid is not None:
            _signal_group(self.pid, number)

    async def ready(self, timeout_s: float) -> None:
        """Return when its probe says ready. Raises: Failed (code `not_ready`) with the end of its log."""
        missing = "it was not asked yet"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    if self._crashes >= CRASHES_TOLERATED or not (self._wanted.is_set() or self.pid):
                        raise self._not_ready(f"it ended {self._crashes or 1} time(s) right after its start")
                    if self.pid is not None and not (missing := await self.command.probe.ask()):
                        return
                    await self._clock.sleep(ASK_EVERY_S)
        raise self._not_ready(f"after {timeout_s:g} s: {missing}")

    async def _keep(self) -> None:
        """Until cancelled: whenever the process is wanted and gone, start it."""
        while True:
            await self._wanted.wait()
            started = self._clock.monotonic()
            code = await self._live()
            stopped = not self._wanted.is_set()
            if not self._restart:
                self._wanted.clear()
            lived = self._clock.monotonic() - started
            self._crashes = self._crashes + 1 if lived < QUICK_DEATH_S and not stopped else 0
            self._report(self, Happening.STOPPED if stopped else Happening.DIED, _ending(code))
            if self._crashes > 1:
                await self._clock.sleep(min(0.1 * 2**self._crashes, LONGEST_PAUSE_S))

    async def _live(self) -> int:
        with self.log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCHER)),
                *(str(os.getpid()), str(int(self.command.death_signal)), *self.command.argv),
                cwd=self.command.cwd,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._gone = asyncio.Event()
        self.pid = process.pid
        self.starts += 1
        self._alive.set()
        self._report(self, Happening.STARTED, f"pid {process.pid}")
        try:
            return await process.wait()
        finally:
            _signal_group(process.pid, signal.SIGKILL)  # what it started and left behind
            self.pid = None
            self._alive.clear()
            self._gone.set()

    def _not_ready(self, why: str) -> Failed:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:] if self.log.exists() else []
        tail = "".join(f"\n    {line}" for line in lines)
        name = self.command.name
        return Failed("not_ready", f"{name} is not ready, {why}. The end of {self.log}:{tail}", name=name)


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        os.killpg(pid, number)


def _ending(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
