"""What perdure costs when nothing happens: idle processor time, sessions asleep in memory, importing it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from statistics import median

from benchmarks.bench import SERVICE, Bench
from benchmarks.report import Figure
from benchmarks.work import AGENT, text

IDLE_PERCENT, SLEEPING_MIB, IMPORT_S = 0.5, 5.0, 0.3
MIB = 1024 * 1024


async def idle(bench: Bench) -> list[Figure]:
    """A service that has worked and now rests."""
    await _ask(bench, "idle", 0)
    await asyncio.sleep(8)  # what its last turn left behind (a document to clear, a tick) is over
    process = bench.process(SERVICE)
    before, began = process.cpu_times(), time.perf_counter()
    await asyncio.sleep(10)
    after, took = process.cpu_times(), time.perf_counter() - began
    share = (after.user + after.system - before.user - before.system) / took * 100
    note = "the platform asks for its health once a second"
    return [Figure("idle service", "of a core, over 10 s", share, "%", IDLE_PERCENT, note=note)]


async def sleeping(bench: Bench) -> list[Figure]:
    """1,000 sessions that had a turn each and have not been heard of since."""
    for at in range(300):  # more than are kept in memory, so what is kept is there already
        await _ask(bench, f"awake-{at}", at)
    process = bench.process(SERVICE)
    await asyncio.sleep(4)
    before = process.memory_info().rss
    for at in range(1000):
        await _ask(bench, f"asleep-{at}", at)
    await asyncio.sleep(4)
    grown = (process.memory_info().rss - before) / MIB
    note = f"resident: {before / MIB:.0f} MiB before, with 300 sessions seen"
    return [Figure("1,000 sleeping sessions", "more in the process", grown, "MiB", SLEEPING_MIB, note=note)]


async def importing(bench: Bench) -> list[Figure]:
    """A fresh interpreter."""
    code = "import time; began = time.perf_counter(); import perdure; print(time.perf_counter() - began)"
    took = [float(await asyncio.to_thread(_run, code)) for _ in range(bench.rounds(9, 5))]
    return [Figure("import perdure", "median", median(took), "s", IMPORT_S)]


def _run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


async def _ask(bench: Bench, session: str, seed: int) -> None:
    body = {"agent": AGENT, "session": session, "text": text(seed % 64)}
    reply = await bench.client.post(f"{bench.url}/turns", json=body)
    if reply.status_code != 200:
        raise RuntimeError(f"POST /turns answered {reply.status_code}: {reply.text}")
