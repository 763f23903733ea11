"""The rounds of one replica: once a second while anything is going on here; not at all otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from perdure.clock import Clock
from perdure.errors import PerdureError, Transient
from perdure.observability.logs import get_logger
from perdure.run.crew import Crew, close_segment
from perdure.run.rescue import Rescue
from perdure.run.subject import Subject

log = get_logger(__name__)


class Rounds:
    """Beats for the replica, and looks after its drives, its watched subjects and its orphans."""

    def __init__(self, crew: Crew, rescue: Rescue, clock: Clock) -> None:
        self._crew = crew
        self._rescue = rescue
        self._clock = clock
        self._limits = crew.limits
        self._going: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._put_off: set[str] = set()

    async def __aenter__(self) -> Self:
        self._going = asyncio.create_task(self._go(), name="runner rounds")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._going, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _go(self) -> None:
        crew, beaten = self._crew, self._clock.monotonic()
        while True:
            if self._idle():
                crew.astir.clear()
                await crew.astir.wait()
            await self._clock.sleep(self._limits.poll_s)
            if self._clock.monotonic() - beaten >= self._limits.beat_s:
                beaten = self._clock.monotonic()
                await self._safely("beat", crew.presence.beat(self._limits.beat_s))
            if self._looking is None or self._looking.done():  # however long that takes, the beat goes on
                self._looking = asyncio.create_task(self._look(), name="look around")

    def _idle(self) -> bool:
        crew = self._crew
        return not crew.drives and not crew.watched and crew.presence.idle and not crew.hosts.unconfirmed

    async def _look(self) -> None:
        await self._safely("look", self._look_around())

    async def _look_around(self) -> None:
        self._host_what_lasts()
        await self._safely("hosts", self._crew.hosts.retry())
        await self._safely("poll", self._poll())
        await self._mind_orphans()
        await self._mind_watched()

    def _host_what_lasts(self) -> None:
        now = self._clock.monotonic()
        for drive in self._crew.drives.values():
            if now - drive.began < self._limits.host_after_s:
                continue
            run = drive.subject.control.current
            if run is not None and not run.generation:
                drive.nudge(host=True)
            if drive.subject.log.segment_due:
                self._crew.spawn(close_segment(drive.subject), name="segment")

    async def _poll(self) -> None:
        """One bulk read per store tells which subjects have news from elsewhere."""
        busy = [drive.subject for drive in self._crew.drives.values() if drive.busy]
        subjects = {subject.id: subject for subject in [*busy, *self._watched()]}
        for family in {subject.family for subject in subjects.values()}:
            keys = {subject.log.next_key: subject for subject in subjects.values() if subject.family == family}
            for key in await self._crew.stores[family].get_many(list(keys)):
                await self._safely(f"news of {keys[key].id}", keys[key].refresh())

    async def _mind_orphans(self) -> None:
        """What is listed and not driven was left by an interrupted save, or by a drive that failed."""
        crew = self._crew
        for subject, family in list(crew.listed.items()):
            if not crew.held(subject) and not crew.hosts.expects(subject) and not crew.closing:
                await self._safely(f"orphan {subject}", self._rescue.adopt(subject, family, crew.slot, "orphan"))

    async def _mind_watched(self) -> None:
        """Somebody waits for these: whoever should drive them and does not is replaced."""
        for subject in self._watched():
            if self._crew.held(subject.id):
                continue
            if subject.control.current is not None and subject.control.waiting is None:
                await self._safely(f"watched {subject.id}", self._crew.tend(subject))

    def _watched(self) -> list[Subject]:
        return [subject for subject in map(self._crew.subjects.get, self._crew.watched) if subject is not None]

    async def _safely(self, what: str, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except Transient as error:
            if what not in self._put_off:  # said once; how long it lasts is seen where it is waited for
                log.warning("store_away", code=error.code)
            self._put_off.add(what)
        except PerdureError as error:
            log.failure("round_failed", error)
        except Exception as error:  # noqa: BLE001 - the next round must come, whatever one subject's kind does
            log.failure("round_failed", error)
        else:
            self._put_off.discard(what)
