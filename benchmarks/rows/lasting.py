"""The turn that lasts: a model that takes 1 s, a tool that takes 6 s, so that it gets a host in Dapr Workflow."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from benchmarks.bench import Bench, turn
from benchmarks.report import Figure
from benchmarks.work import LASTING, MODEL_S, TOOL_S, text
from perdure.serving.service import Service

AT_ONCE = 32
KIB = 1024


async def hosted(bench: Bench) -> list[Figure]:
    """One at a time beside nothing, then 32 at once."""
    async with bench.inside() as service:
        await asyncio.sleep(1)
        took, store, scheduler = await _measured(bench, service, bench.rounds(3, 1))
        began = time.perf_counter()
        await asyncio.gather(*(turn(service, LASTING, f"crowd-{who}", text(who)) for who in range(AT_ONCE)))
        crowd = time.perf_counter() - began
        await asyncio.sleep(1)
    waits = MODEL_S + TOOL_S
    return [
        Figure("hosted turn", "added to its 7 s of model and tool", (median(took) - waits) * 1000, "ms"),
        Figure("hosted turn", "appended by the store", store, "KiB", note="commits, host workflow, index; a turn"),
        Figure("hosted turn", "written by the scheduler", scheduler, "KiB", note="its process's writes; a turn"),
        Figure("hosted turn", "32 at once", AT_ONCE / crowd, "/s",
               note=f"all done in {crowd:.2f} s; {AT_ONCE / waits:.2f}/s would be without any cost"),
    ]  # fmt: skip


async def _measured(bench: Bench, service: Service, rounds: int) -> tuple[list[float], float, float]:
    stored, written = await bench.stored(), _writes(bench)
    took: list[float] = []
    for round_ in range(rounds):
        began = time.perf_counter()
        await turn(service, LASTING, f"lasting-{round_}", text(round_))
        took.append(time.perf_counter() - began)
        await asyncio.sleep(1)  # the host's own end
    return took, (await bench.stored() - stored) / rounds / KIB, (_writes(bench) - written) / rounds / KIB


def _writes(bench: Bench) -> int:
    return int(bench.process("scheduler").io_counters().write_chars)
