"""What every `Engine` promises, whatever keeps the hosts."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import Invalid, NotFound, SidecarUnavailable, Transient
from perdure.sidecar.dapr.channel import DaprAddress, SidecarChannel
from perdure.sidecar.dapr.engine import DaprEngine
from perdure.sidecar.files import FolderStateStore
from perdure.sidecar.memory import MemoryEngine
from perdure.sidecar.ports import Again, Drive, DriveFunction, Engine, HostBody, HostStatus, HostStep, Pause
from perdure.types import JsonObject

WITHIN_S = 20.0
NewEngine = Callable[[], Engine]


@pytest.fixture(params=["memory", "files", pytest.param("dapr", marks=pytest.mark.sidecar)])
async def new_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NewEngine]:
    """Gives the engine as the next process of the same app would have it."""
    match request.param:
        case "memory":
            engine = MemoryEngine()
            yield lambda: engine
        case "files":
            store = FolderStateStore(tmp_path)
            yield lambda: MemoryEngine(store=store)
            await store.close()
        case _:
            platform = request.getfixturevalue("platform")
            async with AsyncExitStack() as stack:

                def build() -> Engine:
                    channel = SidecarChannel(platform.address)
                    stack.push_async_callback(channel.close)
                    return DaprEngine(channel)

                yield build


@pytest.fixture
def instance() -> str:
    return f"host-{secrets.token_hex(6)}"


class Work:
    """A drive that notes what it was asked and answers as told; `seen` can be awaited."""

    def __init__(self, *answers: JsonObject | Exception) -> None:
        self.inputs: list[JsonObject] = []
        self._answers = list(answers)
        self._changed = asyncio.Condition()

    async def __call__(self, input: JsonObject) -> JsonObject:
        async with self._changed:
            self.inputs.append(input)
            self._changed.notify_all()
        answer = self._answers.pop(0) if self._answers else {}
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def seen(self, count: int) -> list[JsonObject]:
        async with asyncio.timeout(WITHIN_S), self._changed:
            await self._changed.wait_for(lambda: len(self.inputs) >= count)
        return self.inputs


async def ended(engine: Engine, instance: str) -> HostStatus | None:
    """The status once it is no longer running."""
    async with asyncio.timeout(WITHIN_S):
        while (status := await engine.status(instance)) is HostStatus.RUNNING:
            await asyncio.sleep(0.02)
    return status


@asynccontextmanager
async def serving(engine: Engine, instance: str, body: HostBody, drive: DriveFunction) -> AsyncIterator[None]:
    """Serve, and leave no host behind that another test's worker would be given."""
    async with engine.serve(body, drive):
        yield
        await engine.terminate(instance)
        await ended(engine, instance)


def one_drive(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
    return (yield Drive(input))


def pausing(seconds: float | None) -> HostBody:
    def body(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        yield Drive({"step": "first"})
        woken = yield Pause(seconds)
        yield Drive({"step": "second", "woken": woken})
        return {}

    return body


async def test_a_host_drives_its_input_and_is_done(new_engine: NewEngine, instance: str) -> None:
    engine, work = new_engine(), Work()
    async with serving(engine, instance, one_drive, work):
        assert engine.connected
        await engine.start(instance, {"run": "r-1", "n": 3})
        assert await work.seen(1) == [{"run": "r-1", "n": 3}]
        assert await ended(engine, instance) is HostStatus.DONE
    assert not engine.connected


async def test_the_body_gets_what_the_drive_answered(new_engine: NewEngine, instance: str) -> None:
    def body(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        answer = yield Drive({})
        yield Drive({"heard": answer})
        return {}

    engine, work = new_engine(), Work({"status": "waiting", "until": None})
    async with serving(engine, instance, body, work):
        await engine.start(instance, {})
        assert (await work.seen(2))[1] == {"heard": {"status": "waiting", "until": None}}


async def test_starting_an_existing_host_changes_nothing(new_engine: NewEngine, instance: str) -> None:
    engine, work = new_engine(), Work()
    async with serving(engine, instance, pausing(None), work):
        await engine.start(instance, {"first": True})
        await work.seen(1)
        await engine.start(instance, {"first": False})
        await engine.wake(instance)
        await work.seen(2)
        assert await ended(engine, instance) is HostStatus.DONE
        await engine.start(instance, {"first": False})
        assert await engine.status(instance) is HostStatus.DONE
    assert len(work.inputs) == 2


async def test_a_pause_ends_at_its_time(new_engine: NewEngine, instance: str) -> None:
    engine, work = new_engine(), Work()
    async with serving(engine, instance, pausing(0.3), work):
        await engine.start(instance, {})
        assert (await work.seen(2))[1] == {"step": "second", "woken": False}
        assert await ended(engine, instance) is HostStatus.DONE


@pytest.mark.parametrize("seconds", [None, 600.0])
async def test_a_wake_ends_a_pause_before_its_time(new_engine: NewEngine, instance: str, seconds: float | None) -> None:
    engine, work = new_engine(), Work()
    async with serving(engine, instance, pausing(seconds), work):
        await engine.start(instance, {})
        await work.seen(1)
        await engine.wake(instance)
        assert (await work.seen(2))[1] == {"step": "second", "woken": True}


async def test_wakes_during_a_drive_end_the_next_pause_once(new_engine: NewEngine, instance: str) -> None:
    going = asyncio.Event()
    inputs: list[JsonObject] = []

    async def drive(input: JsonObject) -> JsonObject:
        inputs.append(input)
        if input == {}:
            await going.wait()
        return {}

    def body(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        yield Drive({})
        first = yield Pause(60.0)
        second = yield Pause(0.2)
        yield Drive({"woken": [first, second]})
        return {}

    engine = new_engine()
    async with serving(engine, instance, body, drive):
        await engine.start(instance, {})
        await engine.wake(instance)
        await engine.wake(instance)
        going.set()
        assert await ended(engine, instance) is HostStatus.DONE
    assert inputs[1:] == [{"woken": [True, False]}]


async def test_a_wake_after_a_pause_that_timed_out_is_not_lost(new_engine: NewEngine, instance: str) -> None:
    def body(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        first = yield Pause(0.1)
        yield Drive({})
        second = yield Pause(60.0)
        yield Drive({"woken": [first, second]})
        return {}

    engine, work = new_engine(), Work()
    async with serving(engine, instance, body, work):
        await engine.start(instance, {})
        await work.seen(1)
        await engine.wake(instance)
        assert (await work.seen(2))[1] == {"woken": [False, True]}


async def test_again_starts_over_with_the_new_input_and_keeps_wakes(new_engine: NewEngine, instance: str) -> None:
    going = asyncio.Event()
    inputs: list[JsonObject] = []

    async def drive(input: JsonObject) -> JsonObject:
        inputs.append(input)
        if input == {"round": 0}:
            await going.wait()
        return {}

    def body(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        yield Drive(input)
        if input["round"] == 0:
            yield Again({"round": 1})
        woken = yield Pause(60.0)
        yield Drive({"woken": woken})
        return {}

    engine = new_engine()
    async with serving(engine, instance, body, drive):
        await engine.start(instance, {"round": 0})
        await engine.wake(instance)
        going.set()
        assert await ended(engine, instance) is HostStatus.DONE
    assert inputs == [{"round": 0}, {"round": 1}, {"woken": True}]


async def test_a_drive_that_fails_for_a_passing_reason_is_repeated(new_engine: NewEngine, instance: str) -> None:
    engine, work = new_engine(), Work(Transient("store_away", "the store is away"), {"ok": True})
    async with serving(engine, instance, one_drive, work):
        await engine.start(instance, {"run": "r"})
        assert await work.seen(2) == [{"run": "r"}, {"run": "r"}]
        assert await ended(engine, instance) is HostStatus.DONE


async def test_a_drive_that_fails_for_good_fails_the_host(new_engine: NewEngine, instance: str) -> None:
    engine, work = new_engine(), Work(ValueError("no"))
    async with serving(engine, instance, one_drive, work):
        await engine.start(instance, {})
        assert await ended(engine, instance) is HostStatus.FAILED
    assert len(work.inputs) == 1


async def test_a_terminated_host_stays_so(new_engine: NewEngine, instance: str) -> None:
    engine, work = new_engine(), Work()
    async with serving(engine, instance, pausing(None), work):
        await engine.start(instance, {})
        await work.seen(1)
        await engine.terminate(instance)
        assert await ended(engine, instance) is HostStatus.TERMINATED
        await engine.terminate(instance)
        with pytest.raises(NotFound):
            await engine.wake(instance)
        await engine.start(instance, {})
        assert await engine.status(instance) is HostStatus.TERMINATED


async def test_an_unknown_host_has_no_status_and_cannot_be_woken(new_engine: NewEngine, instance: str) -> None:
    engine = new_engine()
    async with serving(engine, instance, one_drive, Work()):
        assert await engine.status(instance) is None
        await engine.terminate(instance)
        with pytest.raises(NotFound, match=instance):
            await engine.wake(instance)


async def test_a_finished_host_cannot_be_woken(new_engine: NewEngine, instance: str) -> None:
    engine = new_engine()
    async with serving(engine, instance, one_drive, Work()):
        await engine.start(instance, {})
        await ended(engine, instance)
        with pytest.raises(NotFound):
            await engine.wake(instance)


@pytest.mark.parametrize("bad", ["", "a b", "a/b", "x" * 65, "a||b"])
async def test_an_instance_id_outside_the_alphabet_is_refused(new_engine: NewEngine, bad: str) -> None:
    with pytest.raises(Invalid):
        await new_engine().start(bad, {})


async def test_a_waiting_host_carries_on_in_the_next_process(new_engine: NewEngine, instance: str) -> None:
    work = Work()
    first = new_engine()
    async with first.serve(pausing(None), work):
        await first.start(instance, {})
        await work.seen(1)
    second, later = new_engine(), Work()
    async with serving(second, instance, pausing(None), later):
        assert await second.status(instance) is HostStatus.RUNNING
        await second.wake(instance)
        assert await ended(second, instance) is HostStatus.DONE
    assert later.inputs[-1] == {"step": "second", "woken": True}


async def test_a_drive_cut_by_the_end_of_its_process_is_driven_again(new_engine: NewEngine, instance: str) -> None:
    begun = asyncio.Event()

    async def stuck(input: JsonObject) -> JsonObject:
        begun.set()
        await asyncio.Event().wait()
        return {}

    first = new_engine()
    async with first.serve(one_drive, stuck):
        await first.start(instance, {"run": "r"})
        async with asyncio.timeout(WITHIN_S):
            await begun.wait()
    second, work = new_engine(), Work()
    async with serving(second, instance, one_drive, work):
        assert await work.seen(1) == [{"run": "r"}]
        assert await ended(second, instance) is HostStatus.DONE


async def test_many_hosts_drive_side_by_side(new_engine: NewEngine) -> None:
    count, waiting, release = 40, asyncio.Semaphore(0), asyncio.Event()

    async def drive(input: JsonObject) -> JsonObject:
        waiting.release()
        await release.wait()
        return {}

    engine, run = new_engine(), secrets.token_hex(4)
    async with engine.serve(one_drive, drive):
        await asyncio.gather(*(engine.start(f"{run}-{n}", {"n": n}) for n in range(count)))
        async with asyncio.timeout(WITHIN_S):
            for _ in range(count):
                await waiting.acquire()
        release.set()
        assert {await ended(engine, f"{run}-{n}") for n in range(count)} == {HostStatus.DONE}


async def test_the_drive_runs_on_the_loop_that_serves(new_engine: NewEngine, instance: str) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def drive(input: JsonObject) -> JsonObject:
        loops.append(asyncio.get_running_loop())
        return {}

    engine = new_engine()
    async with serving(engine, instance, one_drive, drive):
        await engine.start(instance, {})
        await ended(engine, instance)
    assert loops == [asyncio.get_running_loop()]


# --- the sidecar's own ways ------------------------------------------------------------------------


@pytest.mark.sidecar
async def test_a_sidecar_that_is_away_ends_serve_in_bounded_time_without_blocking() -> None:
    channel = SidecarChannel(DaprAddress(grpc="127.0.0.1:1"))
    engine = DaprEngine(channel, connect_timeout_s=0.5)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    with pytest.raises(SidecarUnavailable, match=r"127\.0\.0\.1:1"):
        async with engine.serve(one_drive, Work()):
            pass
    ticking.cancel()
    assert ticks > 20
    with pytest.raises(SidecarUnavailable):
        await engine.status("x")
    await channel.close()


@pytest.mark.sidecar
async def test_after_a_sidecar_was_killed_the_worker_carries_on_by_itself(platform: Any, instance: str) -> None:
    channel = SidecarChannel(platform.address)
    engine, work = DaprEngine(channel), Work()
    async with engine.serve(pausing(None), work):
        await engine.start(instance, {})
        await work.seen(1)
        platform.kill_sidecar()
        async with asyncio.timeout(WITHIN_S):
            while engine.connected:
                await asyncio.sleep(0.02)
        await asyncio.to_thread(platform.start_sidecar)
        async with asyncio.timeout(2.0):
            while not engine.connected:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(WITHIN_S):
            while True:
                try:
                    await engine.wake(instance)
                    break
                except Transient:
                    await asyncio.sleep(0.1)
        # The first drive may be handed out twice: the sidecar died before or after noting that it was done.
        assert await ended(engine, instance) is HostStatus.DONE
        assert work.inputs[-1] == {"step": "second", "woken": True}
        assert engine.connected
    await channel.close()
