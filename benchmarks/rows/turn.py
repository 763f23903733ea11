"""One turn at a time, 32 sessions at once, and a session that grows old; the floor between, in the same minutes."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from statistics import mean, median, quantiles

from benchmarks.bench import INSIDE, SERVICE, Bench, turn
from benchmarks.floor import Floor, floor
from benchmarks.report import Figure
from benchmarks.work import AGENT, COMMITS, text
from perdure.serving.service import Service

SESSIONS = 32
P50_MS, RATIO = 6.0, 1.25
TURNS_PER_S = 500.0
OLD = 1.2


async def timed(action: Awaitable[object]) -> float:
    """Milliseconds that `action` takes, from its first step on."""
    began = time.perf_counter()
    await action
    return (time.perf_counter() - began) * 1000


def p95(values: Iterable[float]) -> float:
    """The 95th percentile."""
    return quantiles(list(values), n=20)[-1]


async def one_turn(bench: Bench) -> list[Figure]:
    """One turn at a time beside five bare writes."""
    turns: list[float] = []
    bare: list[float] = []
    hops: list[float] = []
    ratios: list[float] = []
    processor = 0.0
    async with bench.inside() as service, floor(bench.grpc) as below:
        await _warm(service, below)
        gc.collect()
        for round_ in range(bench.rounds(20, 6)):
            burnt = time.process_time()
            mine = [await timed(_turn(service, f"one-{round_}", at)) for at in range(20)]
            processor += time.process_time() - burnt
            floored = [await timed(below.writes(COMMITS)) for _ in range(20)]
            hops += [await timed(below.hop()) for _ in range(20)]
            turns, bare = turns + mine, bare + floored
            ratios.append(median(mine) / median(floored))
        through_http = await _by_http(bench)
    return [
        Figure("one turn", "p50", median(turns), "ms", P50_MS, note=f"{COMMITS} durable writes, one after the other"),
        Figure("one turn", "p95", p95(turns), "ms"),
        Figure("one turn", "to five bare writes", median(ratios), "×", RATIO, note="median over rounds"),
        Figure("one turn", "processor time of the app", processor / len(turns) * 1000, "ms", note="all threads"),
        Figure("one turn", "by POST /turns, p50", median(through_http), "ms", note="another process, HTTP direct"),
        Figure("floor", "five bare writes, p50", median(bare), "ms", note="1 KiB, first-write, one caller"),
        Figure("floor", "five bare writes, p95", p95(bare), "ms"),
        Figure("floor", "the hop alone, p50", median(hops), "ms", note="GetMetadata"),
    ]


async def many_sessions(bench: Bench) -> list[Figure]:
    """32 sessions at once beside 32 callers of five bare writes."""
    seconds = 3.0 if bench.quick else 5.0
    rates: list[float] = []
    floors: list[float] = []
    processor: list[float] = []
    async with bench.inside() as service, floor(bench.grpc) as below:
        await _warm(service, below)
        for round_ in range(bench.rounds(5, 2)):
            burnt = time.process_time()
            done, took = await _crowd(partial(_crowded_turn, service, round_), seconds)
            processor.append((time.process_time() - burnt) / done * 1000)
            rates.append(done / took)
            done, took = await _crowd(lambda who: below.writes(COMMITS), seconds / 2)
            floors.append(done / took)
    return [
        Figure("32 sessions", "turns a second", median(rates), "/s", TURNS_PER_S, least=True),
        Figure("32 sessions", "processor time of the app", median(processor), "ms", note="a turn, all threads"),
        Figure("32 sessions", "of the bare writes' rate", median(rates) / median(floors), "×", note="see floor"),
        Figure("floor", "32 callers, five bare writes each", median(floors), "/s", note="groups of five a second"),
    ]


async def old_session(bench: Bench) -> list[Figure]:
    """Turn 300 of one session beside turn 10 of young ones, taking turns."""
    young: list[float] = []
    old: list[float] = []
    async with bench.inside() as service, floor(bench.grpc) as below:
        await _warm(service, below)
        for at in range(290):
            await _turn(service, "old", at)
        for round_ in range(bench.rounds(8, 3)):
            for at in range(4):
                await _turn(service, f"young-{round_}", at)
            for at in range(13):  # as many turns as make a segment
                young.append(await timed(_turn(service, f"young-{round_}", at)))
                old.append(await timed(_turn(service, "old", at)))
    return [
        Figure("turn 300", "p50 to that of turn 10", median(old) / median(young), "×", OLD),
        Figure("turn 300", "mean to that of turn 10", mean(old) / mean(young), "×", OLD, note="segments included"),
        Figure("turn 300", "p50", median(old), "ms", note=f"turn 10: {median(young):.2f} ms"),
    ]


async def _warm(service: Service, below: Floor) -> None:
    for at in range(30):
        await _turn(service, "warm", at)
        await below.writes(2)


async def _turn(service: Service, session: str, seed: int) -> None:
    await turn(service, AGENT, session, text(seed))


async def _crowded_turn(service: Service, round_: int, who: int) -> None:
    await _turn(service, f"many-{round_}-{who}", who)


async def _crowd(action: Callable[[int], Awaitable[object]], seconds: float) -> tuple[int, float]:
    """How often 32 callers got through `action` in about `seconds`, and the exact seconds."""
    began = time.perf_counter()
    done = 0

    async def caller(who: int) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await action(who)
            done += 1

    await asyncio.gather(*(caller(who) for who in range(SESSIONS)))
    return done, time.perf_counter() - began


async def _by_http(bench: Bench) -> list[float]:
    await bench.platform.ready(SERVICE, INSIDE)

    async def ask(at: int) -> None:
        body = {"agent": AGENT, "session": f"http-{at // 20}", "text": text(at)}
        reply = await bench.client.post(f"{bench.url}/turns", json=body)
        if reply.status_code != 200:
            raise RuntimeError(f"POST /turns answered {reply.status_code}: {reply.text}")

    for at in range(20):
        await ask(at)
    return [await timed(ask(at)) for at in range(bench.rounds(200, 60))]
