"""Crash points: a process over stores that outlive it, stopped dead at a chosen boundary.

A `Process` is the tasks that begin within it. What they do to the outside passes `cross`: each write to a
`CrashingStore` and each effect of a `CrashingKind` is a boundary before and one after it. At boundary `crash_at` the
process is dead: nothing of it lands any more, and whatever its tasks still try is cut. At `freeze_at` it stops as a
process that is suspended does: it goes on where it was when it is thawed. Meanwhile another one may live over the same
stores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from perdure.clock import Clock
from perdure.run.control import Control, Position, RunInfo
from perdure.run.event import Event, EventCodec, Settled
from perdure.run.kind import Action, Doing, Kind, Verdict
from perdure.sidecar.ports import Item, StateStore
from perdure.types import JsonObject

S = TypeVar("S")
T = TypeVar("T")

BURY_ROUNDS = 1000
"""Tasks that are still not done after so many cancellations refuse to die, which is worth a report."""

_current: ContextVar[Process | None] = ContextVar("perdure_testing_process", default=None)


class Process:
    """Tasks that live and die together. `crash_at` and `freeze_at` count boundaries from 1; 0 is never."""

    def __init__(self, crash_at: int = 0, name: str = "process", *, freeze_at: int = 0) -> None:
        self.name = name
        self.crash_at = crash_at
        self.freeze_at = freeze_at
        self.boundaries: list[str] = []
        self.dead = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._moving = asyncio.Event()
        self._moving.set()

    def start(self, main: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin the process: `main`, and every task that begins within it, belong to it."""
        loop = asyncio.get_running_loop()
        if loop.get_task_factory() is None:
            loop.set_task_factory(_owned)
        context = copy_context()
        context.run(_current.set, self)
        return context.run(loop.create_task, main)

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Count `task` among those that die with the process."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def alive(self) -> None:
        """Return if the process lives. For whatever must not happen any more when it does not."""
        if self.dead:
            raise asyncio.CancelledError

    @property
    def frozen(self) -> bool:
        """Whether it is suspended."""
        return not self._moving.is_set()

    async def moving(self) -> None:
        """Return when the process is not suspended, and lives."""
        self.alive()
        await self._moving.wait()
        self.alive()

    async def cross(self, where: str) -> None:
        """Pass a boundary, or stop there."""
        await self.moving()
        self.boundaries.append(where)
        if len(self.boundaries) == self.crash_at:
            self.kill()
        if len(self.boundaries) == self.freeze_at:
            self._moving.clear()
        await self.moving()

    def thaw(self) -> None:
        """Go on after a suspension."""
        self._moving.set()

    def kill(self) -> None:
        """From now on nothing that it tries happens."""
        self.dead = True

    async def bury(self) -> None:
        """Return when none of its tasks is left."""
        self.kill()
        for _ in range(BURY_ROUNDS):
            left = [task for task in self._tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError(f"tasks of {self.name} refuse to die: {[task.get_name() for task in self._tasks]}")


def alive() -> None:
    """Return if the process that the caller belongs to lives, or if it belongs to none."""
    process = _current.get()
    if process is not None:
        process.alive()


def _owned(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **options: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    given: Context | None = options.get("context")
    process = given.get(_current) if given is not None else _current.get()
    if process is not None:
        process.adopt(task)
    return task


class ProcessClock:
    """Time as one process notices it: it sleeps on while it is suspended."""

    def __init__(self, inner: Clock, process: Process) -> None:
        self._process = process
        self._inner = inner
        self.now = inner.now
        self.monotonic = inner.monotonic

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)
        await self._process.moving()


class CrashingStore:
    """The `StateStore` as one process sees it: boundaries around each write, nothing once it is dead."""

    def __init__(self, inner: StateStore, process: Process) -> None:
        self.name = inner.name
        self._inner = inner
        self._process = process

    async def get(self, key: str) -> Item | None:
        await self._process.moving()
        found = await self._inner.get(key)
        await self._process.moving()
        return found

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        await self._process.moving()
        found = await self._inner.get_many(keys)
        await self._process.moving()
        return found

    async def create(self, key: str, value: bytes) -> None:
        await self._process.cross(f"before create {key}")
        await self._inner.create(key, value)
        await self._process.cross(f"after create {key}")

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await self._process.cross(f"before put {key}")
        await self._inner.put(key, value, etag=etag)
        await self._process.cross(f"after put {key}")

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        await self._process.cross(f"before delete {key}")
        await self._inner.delete(key, etag=etag)
        await self._process.cross(f"after delete {key}")

    async def check(self) -> None:
        await self._process.moving()
        await self._inner.check()


class CrashingKind(Kind[S]):
    """A kind as one process runs it: boundaries around each effect.

    A process suspended right before an effect does it when it is thawed: nothing but the target can prevent that.
    """

    def __init__(self, inner: Kind[S], process: Process) -> None:
        self.name = inner.name
        self.version = inner.version
        self.codec: EventCodec = inner.codec
        self._inner = inner
        self._process = process

    def initial(self) -> S:
        return self._inner.initial()

    def fold(self, state: S, event: Event, at: Position) -> S:
        return self._inner.fold(state, event, at)

    def decide(self, state: S, control: Control) -> Verdict:
        return self._inner.decide(state, control)

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        await self._process.cross(f"before do {action.name}")
        events = await self._inner.do(action, doing)
        await self._process.cross(f"after do {action.name}")
        return events

    async def reconcile(self, action: Action, doing: Doing) -> Settled | bool | None:
        await self._process.cross(f"before reconcile {action.name}")
        said = await self._inner.reconcile(action, doing)
        await self._process.cross(f"after reconcile {action.name}")
        return said

    def ended(self, run_id: str, info: RunInfo) -> None:
        self._inner.ended(run_id, info)

    def dump(self, state: S) -> bytes:
        return self._inner.dump(state)

    def load(self, data: bytes) -> S:
        return self._inner.load(data)

    def describe(self, state: S, control: Control, run: int) -> JsonObject:
        return self._inner.describe(state, control, run)
