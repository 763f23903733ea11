"""One kept process: real ones, as small as possible."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from perdure.clock import SystemClock
from perdure.dev.child import Child, Happening
from perdure.dev.commands import Command
from perdure.errors import Conflict, Failed

ENDLESS = "print('here', flush=True); import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('here', flush=True)\nwhile True: signal.pause()"
WITH_GRANDCHILD = (
    "import subprocess, sys, signal; p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    "print(p.pid, flush=True); signal.pause()"
)


@dataclass(frozen=True)
class LogProbe:
    """Ready when the process has written a line."""

    log: Path

    async def ask(self) -> str:
        return "" if self.log.exists() and self.log.read_text() else "it wrote nothing yet"


Told = list[tuple[Happening, str]]


@asynccontextmanager
async def kept(folder: Path, code: str, *, restart: bool = True) -> AsyncIterator[tuple[Child, Told]]:
    told: Told = []
    log = folder / "it.log"
    command = Command("it", (sys.executable, "-c", code), folder, LogProbe(log), grace_s=0.5)
    child = Child(
        command, log, dict(os.environ), SystemClock(), lambda _, what, how: told.append((what, how)), restart=restart
    )
    await child.start()
    try:
        yield child, told
    finally:
        await child.close()


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if os.path.exists("/proc") else True
    )


async def until(true: Callable[[], bool]) -> None:
    """Other processes tell nobody when they end, so they are asked."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


async def first_lines(stream: asyncio.StreamReader, count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield (await stream.readline()).decode()


async def test_a_killed_process_comes_back_at_once(tmp_path: Path) -> None:
    """After SIGKILL another process is there, and the report says how the first one ended."""
    async with kept(tmp_path, ENDLESS) as (child, told):
        await child.ready(10)
        first = await child.kill()
        await child.start()
        assert child.pid not in {None, first}
        assert (Happening.DIED, "by SIGKILL") in told


async def test_without_restart_it_stays_down_until_started(tmp_path: Path) -> None:
    """Kill tests decide themselves when the process comes back."""
    async with kept(tmp_path, ENDLESS, restart=False) as (child, _):
        await child.ready(10)
        await child.kill()
        assert child.pid is None
        with pytest.raises(Conflict, match="start it first"):
            await child.kill()
        await child.start()
        assert child.pid is not None


async def test_a_process_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    """Stopping ends in any case."""
    async with kept(tmp_path, STUBBORN) as (child, told):
        await child.ready(10)
        await child.stop()
        assert child.pid is None
        assert told[-1] == (Happening.STOPPED, "by SIGKILL")


async def test_a_frozen_process_can_be_stopped(tmp_path: Path) -> None:
    """SIGSTOP does not keep it from receiving the end."""
    async with kept(tmp_path, ENDLESS) as (child, told):
        await child.ready(10)
        child.signal(signal.SIGSTOP)
        await child.stop()
        assert told[-1] == (Happening.STOPPED, "by SIGTERM")


async def test_what_a_killed_process_had_started_goes_with_it(tmp_path: Path) -> None:
    """The whole group ends, so no grandchild keeps a port."""
    async with kept(tmp_path, WITH_GRANDCHILD, restart=False) as (child, _):
        await child.ready(10)
        grandchild = int(child.log.read_text())
        os.kill(child.pid or 0, signal.SIGKILL)  # only the process itself, not its group
        await until(lambda: child.pid is None and not running(grandchild))


async def test_a_crash_loop_is_told_with_the_end_of_the_log(tmp_path: Path) -> None:
    """Waiting for a process that keeps dying ends early, with its last words."""
    async with kept(tmp_path, "import sys; sys.exit('the reason')") as (child, _):
        object.__setattr__(child.command, "probe", LogProbe(tmp_path / "never"))
        with pytest.raises(Failed, match=r"5 time\(s\)[\s\S]*the reason"):
            await child.ready(30)


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """The log says which program could not be started."""
    command = Command("it", ("no-such-program",), tmp_path, LogProbe(tmp_path / "never"))
    child = Child(command, tmp_path / "it.log", dict(os.environ), SystemClock(), lambda *_: None, restart=False)
    await child.start()
    with pytest.raises(Failed, match="cannot start no-such-program"):
        await child.ready(10)
    await child.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
async def test_a_child_ends_with_its_platform_even_by_sigkill(tmp_path: Path) -> None:
    """The kernel takes the process along when the one that started it is killed."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import asyncio, os, sys\nfrom pathlib import Path\nfrom perdure.clock import SystemClock\n"
        "from perdure.dev.child import Child\nfrom perdure.dev.commands import Command\n"
        "from perdure.dev.probes import HttpProbe\n"
        "async def main():\n"
        f"    c = Command('it', (sys.executable, '-c', {ENDLESS!r}), Path({str(tmp_path)!r}), HttpProbe(1, '/'))\n"
        f"    it = Child(c, Path({str(tmp_path / 'it.log')!r}), dict(os.environ), SystemClock(), print, restart=True)\n"
        "    await it.start()\n    print('pid', it.pid, flush=True)\n    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    told = [line async for line in first_lines(parent.stdout, 2)]
    child = int(told[-1].split()[1])
    assert running(child)
    parent.kill()
    await parent.wait()
    await until(lambda: not running(child))
