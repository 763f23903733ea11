"""Processes killed with SIGKILL in the middle of turns: how long until the answer, and what ran twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from statistics import median
from typing import Any

import httpx2

from benchmarks.bench import SERVICE, Bench
from benchmarks.report import Figure

RECOVERY_S = 0.6
RAN_TWICE = 2.0
CALLERS = 4
STUCK_S = 60.0
LIFE_S = 2.1
"""A process that dies younger than this is taken for one that crashes, and is started again with a pause."""


async def recovery(bench: Bench) -> list[Figure]:
    """From the kill to the answer, with the restart; a step that had finished must not run again."""
    figures: list[Figure] = []
    cases = {"the app": [SERVICE], "its sidecar": [f"{SERVICE}.sidecar"], "both": [SERVICE, f"{SERVICE}.sidecar"]}
    for name, victims in cases.items():
        took = [await _cut(bench, f"cut-{name}-{round_}", victims) for round_ in range(bench.rounds(5, 2))]
        mark = RECOVERY_S if victims == [SERVICE] else None
        spread = f"{min(took):.2f} to {max(took):.2f} s"
        figures.append(Figure("kill -9 → turn done", f"{name} killed, median", median(took), "s", mark, note=spread))
    twice = _twice(bench)
    figures.append(Figure("kill -9 → turn done", "finished steps that ran again", twice, "", 0))
    return figures


async def _cut(bench: Bench, session: str, victims: list[str]) -> float:
    """Kill while the second of two steps runs; seconds until the answer is there."""
    await bench.platform.ready()
    await asyncio.sleep(LIFE_S)
    seen = _lines(bench).count("attempt-1 idempotent")
    begun = await _post(bench, {"agent": "cut", "session": session, "text": "go", "key": session, "wait_s": 0})
    while _lines(bench).count("attempt-1 idempotent") == seen:  # noqa: ASYNC110 - written by another process
        await asyncio.sleep(0.01)
    began = time.perf_counter()
    await asyncio.gather(*(bench.platform.kill(victim) for victim in victims))
    if SERVICE not in victims:
        # The step itself lives on in the app; that another life of the app finishes it is the other cases.
        return await _until_store(bench, session, began)
    while True:
        shown = await _get(bench, f"/turns/{begun['id']}")
        if shown is not None and shown["status"] == "done":
            return time.perf_counter() - began
        await asyncio.sleep(0.01)


async def _until_store(bench: Bench, session: str, began: float) -> float:
    """With only the sidecar killed, the next turn of another session shows how long nothing could be written."""
    body = {"agent": "work", "session": f"after-{session}", "text": "go", "key": f"after-{session}"}
    while True:
        reply = await _try(bench, body)
        if reply is not None and reply.get("status") == "done":
            return time.perf_counter() - began
        await asyncio.sleep(0.01)


async def random_kills(bench: Bench) -> list[Figure]:
    """Turns of three steps go on all the time while the app is killed at random moments."""
    await bench.platform.ready()
    kills = bench.rounds(20, 6)
    bench.effects.write_text("")
    source = random.Random(7)
    stop = asyncio.Event()
    answered: list[str] = []
    callers = [asyncio.create_task(_caller(bench, who, stop, answered)) for who in range(CALLERS)]
    for _ in range(kills):
        await bench.platform.ready(SERVICE)
        await asyncio.sleep(LIFE_S + source.uniform(0.0, 0.5))
        await bench.platform.kill(SERVICE)
    stop.set()
    async with asyncio.timeout(STUCK_S):
        await asyncio.gather(*callers)
    counted = Counter(line for line in _lines(bench).splitlines() if line.startswith("ended "))
    again = Counter(line.split()[1] for line, times in counted.items() for _ in range(times - 1))
    row = f"{kills} random kills"
    detail = f"read {again['read']}, idempotent {again['idempotent']}, of {len(counted)} steps"
    return [
        Figure(row, "`once` steps that ran twice", again["once"], "", 0),
        Figure(row, "steps that ran to their end twice", sum(again.values()), "", RAN_TWICE, note=detail),
        Figure(row, "turns answered", len(answered), "", note=f"{CALLERS} callers, every turn that was asked"),
    ]


async def _caller(bench: Bench, who: int, stop: asyncio.Event, answered: list[str]) -> None:
    """Ask, and ask again with the same key until there is an answer."""
    at = 0
    while not stop.is_set():
        key = f"random-{who}-{at}"
        body = {"agent": "steps", "session": f"random-{who}", "text": key, "key": key}
        while True:
            reply = await _try(bench, body)
            if reply is not None and reply.get("status") == "done":
                break
            await asyncio.sleep(0.02)
        answered.append(key)
        at += 1


def _lines(bench: Bench) -> str:
    return bench.effects.read_text() if bench.effects.exists() else ""


def _twice(bench: Bench) -> int:
    """Keys of steps that noted their end more than once."""
    ended = Counter(line for line in _lines(bench).splitlines() if line.startswith("ended "))
    return sum(times - 1 for times in ended.values())


async def _post(bench: Bench, body: dict[str, Any]) -> dict[str, Any]:
    reply = await bench.client.post(f"{bench.url}/turns", json=body)
    reply.raise_for_status()
    shown: dict[str, Any] = reply.json()
    return shown


async def _try(bench: Bench, body: dict[str, Any]) -> dict[str, Any] | None:
    """The reply, or None while nobody answers or the service asks for patience."""
    try:
        reply = await bench.client.post(f"{bench.url}/turns", json=body)
    except httpx2.TransportError:
        return None
    return reply.json() if reply.status_code in (200, 202) else None


async def _get(bench: Bench, path: str) -> dict[str, Any] | None:
    try:
        reply = await bench.client.get(f"{bench.url}{path}")
    except httpx2.TransportError:
        return None
    return reply.json() if reply.status_code == 200 else None
