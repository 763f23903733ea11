"""A stage for crash tests: what outlives processes, lives of replicas over it, and what must hold afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from perdure.clock import SystemIds, parse_rfc3339
from perdure.errors import SidecarUnavailable
from perdure.log.limits import LogLimits
from perdure.observability.metrics import make_metrics
from perdure.run.event import Event, Settled
from perdure.run.kind import Action, Doing, Kind
from perdure.run.runner import Place, RunLimits, Runner
from perdure.sidecar.memory.engine import MemoryEngine
from perdure.sidecar.memory.jobs import MemoryJobs
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.sidecar.ports import Engine, StateStore
from perdure.testing.clock import FakeClock
from perdure.testing.crash import CrashingKind, CrashingStore, Process, ProcessClock
from perdure.types import JsonObject, Slot

LIMITS = RunLimits(
    host_after_s=1.0, start_by_s=0.5, shutdown_s=1.0, poll_s=0.25, beat_s=0.5, stale_s=2.0, sweep_every_s=3,
    retry_max_s=0.2,
)  # fmt: skip
STEP_S = 0.25
METRICS = make_metrics()
T = TypeVar("T")

Client = Callable[[Runner], Awaitable[Any]]
Kinds = Callable[[Process], Mapping[str, Kind[Any]]]


def commits(store: MemoryStateStore) -> list[JsonObject]:
    """Every commit in the store, those of one subject in order."""
    return [orjson.loads(item.value) for key, item in sorted(store._items.items()) if "log/" in key]


def logged(store: MemoryStateStore, t: str) -> list[JsonObject]:
    """Every event of that type."""
    return [event for commit in commits(store) for event in commit.get("ev") or () if event["t"] == t]


class WatchedKind(CrashingKind[Any]):
    """Asserts, at each effect's start, that the log knows of no outcome yet, and that `once` is reserved."""

    def __init__(self, inner: Kind[Any], process: Process, stage: Stage) -> None:
        super().__init__(inner, process)
        self._stage = stage

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        self._process.alive()
        settled = {event["key"] for event in logged(self._stage.store, "settled")}
        if action.key in settled:
            self._stage.wrong.append(f"{action.key} ({action.name}) began again after its outcome was durable")
        reserved = {event["key"] for event in logged(self._stage.store, "reserved")}
        if action.effect != "read" and action.key not in reserved:
            self._stage.wrong.append(f"{action.key} ({action.name}) began without a reservation")
        self._stage.begun.append((self._process.name, doing.fence, action.key))
        late = self._superseded_too_late(action, doing)
        if late:
            self._stage.wrong.append(late)
        events = await super().do(action, doing)
        self._stage.outcomes += [event for event in events if isinstance(event, Settled)]
        return events

    def _superseded_too_late(self, action: Action, doing: Doing) -> str:
        """A driver that was superseded may start what it reserved within the start-by time, nothing else."""
        stored = commits(self._stage.store)
        if action.effect == "read" or max(commit["e"] for commit in stored) == doing.fence:
            return ""
        mine = [c for c in stored if c["e"] == doing.fence and any(_reserves(event, action) for event in c["ev"])]
        age = (self._stage.clock.now() - parse_rfc3339(mine[-1]["at"])).total_seconds() if mine else float("inf")
        if age <= self._stage.limits.start_by_s:
            return ""
        return f"{action.key} ({action.name}) began {age} s after its reservation by a superseded driver"


def _reserves(event: JsonObject, action: Action) -> bool:
    return event["t"] == "reserved" and event["key"] == action.key


@dataclass
class Stage:
    """What survives: stores, time, the world. `life` lets one process live on it."""

    kinds: Kinds
    family: str = "toy"
    limits: RunLimits = LIMITS
    log_limits: LogLimits = field(default_factory=LogLimits)
    clock: FakeClock = field(default_factory=FakeClock)
    store: MemoryStateStore = field(default_factory=lambda: MemoryStateStore("s"))
    engine_store: MemoryStateStore = field(default_factory=lambda: MemoryStateStore("engine"))
    begun: list[tuple[str, int, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    outcomes: list[Settled] = field(default_factory=list)
    said: list[Any] = field(default_factory=list)
    lives: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    closing: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def runner(
        self,
        process: Process,
        slot: str = "a",
        *,
        engine: Engine | None = None,
        store: StateStore | None = None,
        sweeps: bool = True,
    ) -> AsyncIterator[Runner]:
        """A replica; what it writes and does are boundaries of `process`."""
        mine = CrashingStore(store or self.store, process)
        clock = ProcessClock(self.clock, process)
        own = MemoryEngine(clock=clock, store=CrashingStore(self.engine_store, process))
        jobs = MemoryJobs(clock=clock)
        place = Place("app", Slot(slot), {self.family: mine}, engine or own, jobs)
        kinds = {key: WatchedKind(kind, process, self) for key, kind in self.kinds(process).items()}
        runner = Runner(
            place, kinds, clock=clock, ids=SystemIds(), metrics=METRICS, limits=self.limits, log_limits=self.log_limits
        )
        async with runner, runner.hosting(), jobs if sweeps else nullcontext():
            yield runner

    def do(self, work: Coroutine[Any, Any, T], patience_s: float = 60.0) -> T:
        """Run a whole test with time passing as fast as it can."""

        async def main() -> T:
            task = asyncio.create_task(work)
            await self.until(task.done, patience_s)
            return task.result()

        return asyncio.run(main())

    async def life(
        self, client: Client, *, crash_at: int = 0, slot: str = "a", patience_s: float = 60.0,
        store: StateStore | None = None,
    ) -> Process:  # fmt: skip
        """One process that does what `client` asks, rests, and closes; or dies on the way. Returns it, buried."""
        self.lives += 1
        process = Process(crash_at, f"life {self.lives}")

        async def main() -> None:
            async with self.runner(process, slot, store=store) as runner:
                self.said.append(await client(runner))
                await self.clock.sleep(3 * self.limits.beat_s + 2 * self.limits.poll_s)
                while self.listed():
                    await self.clock.sleep(self.limits.beat_s)

        task = process.start(main())
        await self.until(lambda: process.dead or task.done(), patience_s)
        if task.done() and not process.dead:
            task.result()
            process.kill()
        await process.bury()
        return process

    def begin(self, client: Client, process: Process, slot: str, engine: Engine) -> asyncio.Task[Any]:
        """A replica that stays until `Stage.closing`, and what `client` was told through it."""

        async def main() -> Any:
            async with self.runner(process, slot, engine=engine) as runner:
                told = await client(runner)
                self.said.append(told)
                self.told[process.name] = told
                await self.closing.wait()
                return told

        return process.start(main())

    async def until_stopped(self, process: Process, main: asyncio.Task[Any]) -> None:
        """Return when the process is dead, frozen, or has been told what it asked for."""
        while not (process.dead or process.frozen or process.name in self.told or main.done()):
            await self.clock.sleep(STEP_S)

    async def pass_time(self, seconds: float) -> None:
        """Let that much time pass, step by step."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            await self.clock.advance(STEP_S)

    async def until(self, happened: Callable[[], bool], patience_s: float = 60.0) -> None:
        """Let time pass until that; what is ready to run goes first."""
        end = self.clock.monotonic() + patience_s
        while not happened():
            assert self.clock.monotonic() < end, f"stuck after {patience_s} s; log: {commits(self.store)}"
            await self.clock.settle()
            if not happened():
                await self.clock.advance(STEP_S)

    def check(self, run: str, runs: int = 1) -> None:
        """The promises that hold for every run, whatever was killed."""
        assert self.wrong == [], self.wrong
        number = int(run.rpartition("-")[2])
        assert len(logged(self.store, "accepted")) == runs
        assert [event["run"] for event in logged(self.store, "closed")].count(number) == 1
        settled = Counter(event["key"] for event in logged(self.store, "settled"))
        assert all(count == 1 for count in settled.values()), settled
        assert self.listed() == {}, "a run that ended is still listed"

    def listed(self) -> dict[str, Any]:
        """Subjects that documents of replicas still name."""
        found = {}
        for key, item in self.store._items.items():
            if "replica/" in key:
                found |= orjson.loads(item.value)["subjects"]
        return found


def boundaries(make: Callable[[], Stage], client: Callable[[Stage], Client]) -> list[str]:
    """The boundaries of one undisturbed life, in order."""

    async def count() -> list[str]:
        stage = make()
        process = await stage.life(client(stage))
        return process.boundaries

    return asyncio.run(count())


class UnsureStore:
    """The door's own worst case: writes numbered in `lost` are done (or, if `never`, not) and raise Transient."""

    def __init__(self, inner: StateStore, lost: Sequence[int], *, never: bool = False) -> None:
        self.name = inner.name
        self.writes = 0
        self._inner = inner
        self._lost = frozenset(lost)
        self._never = never
        self.get = inner.get
        self.get_many = inner.get_many
        self.check = inner.check

    async def create(self, key: str, value: bytes) -> None:
        await self._unsure(lambda: self._inner.create(key, value))

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await self._unsure(lambda: self._inner.put(key, value, etag=etag))

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        await self._unsure(lambda: self._inner.delete(key, etag=etag))

    async def _unsure(self, write: Callable[[], Awaitable[None]]) -> None:
        self.writes += 1
        lost = self.writes in self._lost
        if not (lost and self._never):
            await write()
        if lost:
            raise SidecarUnavailable("sidecar_unavailable", f"write {self.writes} was not answered, as planned")
