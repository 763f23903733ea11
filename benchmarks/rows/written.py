"""How many bytes a turn writes: by the app (what it hands to the store) and by the store (what it appends to disk)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from benchmarks.bench import Bench, Written, turn
from benchmarks.floor import floor
from benchmarks.report import Figure
from benchmarks.work import AGENT, COMMITS, text
from perdure.serving.service import Service

Work = Callable[[], Awaitable[None]]

KIB = 1024
MARK_KIB = 12.0
CYCLE = 64
"""Turns averaged over: five cycles of 64 commits, so five segments with their snapshots are in it."""


@dataclass(frozen=True, slots=True)
class Share:
    """KiB a turn, and writes."""

    app: float
    store: float
    writes: float

    @property
    def both(self) -> float:
        """Together, as the mark counts them."""
        return self.app + self.store


async def written(bench: Bench) -> list[Figure]:
    """Turn 1 of fresh sessions, the turns around 10, and from 300 on."""
    sent = Written()
    async with bench.inside(sent) as service, floor(bench.grpc) as below:
        await _turns(service, "warm", 0, 5)
        first = await _share(bench, sent, 20, lambda: _fresh(service, 20))
        await _turns(service, "one", 0, 9)
        tenth = await _share(bench, sent, CYCLE, lambda: _turns(service, "one", 9, 9 + CYCLE))
        await _turns(service, "one", 9 + CYCLE, 299)
        old = await _share(bench, sent, CYCLE, lambda: _turns(service, "one", 299, 299 + CYCLE))
        before = await bench.stored()
        await below.writes(100 * COMMITS)
        bare = (await bench.stored() - before) / 100 / KIB
    rows = [
        _figure("turn 1", first, "no segment yet"),
        _figure("turns from 10 on", tenth, f"mean of {CYCLE}, segments and snapshots included"),
        _figure("turns from 300 on", old, f"mean of {CYCLE}, segments and snapshots included"),
    ]
    note = "five 1 KiB values; 5 KiB more are sent"
    return [*rows, Figure("floor", "appended by the store for five bare writes", bare, "KiB", note=note)]


def _figure(name: str, share: Share, note: str) -> Figure:
    detail = f"sent {share.app:.1f} (keys, values), appended {share.store:.1f}, {share.writes:.1f} writes; {note}"
    return Figure("written per turn", name, share.both, "KiB", MARK_KIB, note=detail)


async def _share(bench: Bench, sent: Written, turns: int, work: Work) -> Share:
    calls, size, stored = sent.calls, sent.size, await bench.stored()
    await work()
    appended = await bench.stored() - stored
    return Share((sent.size - size) / turns / KIB, appended / turns / KIB, (sent.calls - calls) / turns)


async def _fresh(service: Service, sessions: int) -> None:
    for at in range(sessions):
        await turn(service, AGENT, f"fresh-{at}", text(at))


async def _turns(service: Service, session: str, start: int, stop: int) -> None:
    for at in range(start, stop):
        await turn(service, AGENT, session, text(at))
