"""The drives of one replica: who begins them, who keeps them company, and what follows when one ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from perdure.clock import Clock, Ids
from perdure.errors import Broken, NotFound, PerdureError, Transient
from perdure.log.commit import Stamp
from perdure.log.subject import run_id
from perdure.observability.logs import get_logger
from perdure.observability.metrics import Metrics
from perdure.run.driver import Drive, DriveLimits, Superseded
from perdure.run.event import Accepted, Event, Hosted
from perdure.run.hosting import BUSY_S, Hosting, Hosts, hosting_of, rest
from perdure.run.index import RunIndex
from perdure.run.plan import View
from perdure.run.presence import Presence, Replicas, Watcher
from perdure.run.subject import Decide, Entry, Subject, Subjects
from perdure.sidecar.ports import Engine, StateStore
from perdure.types import JsonObject, RunId, Slot, SubjectId

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunLimits(DriveLimits):
    """Seconds and counts of a replica; the reasons stand with the settings of the same names."""

    poll_s: float = 1.0
    beat_s: float = 2.0
    stale_s: float = 10.0
    max_active_runs: int = 1000
    host_rounds: int = 50
    sweep_every_s: int = 30
    cache_subjects: int = 256


class Crew:
    """Begins, tends and ends drives; beats for the replica while there are any."""

    def __init__(
        self,
        app_id: str,
        slot: Slot,
        stores: Mapping[str, StateStore],
        engine: Engine,
        open_subject: Callable[[SubjectId, str], Subject],
        subjects: Subjects,
        *,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        limits: RunLimits,
        prefix: str,
    ) -> None:
        store = next(iter(stores.values()))
        self.replicas = Replicas(store, prefix, app_id)
        self.index = RunIndex(store, prefix, app_id)
        self.hosts = Hosts(engine, self.index, clock)
        self.watcher = Watcher(clock, limits.stale_s)
        self.slot = slot
        self._presence = Presence(self.replicas, slot, ids.new(), clock, limits.stale_s)
        self._stores = stores
        self._open_subject = open_subject
        self._subjects = subjects
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._limits = limits
        self._drives: dict[SubjectId, Drive] = {}
        self._watched: dict[SubjectId, int] = {}
        self._beginning: dict[SubjectId, int] = {}
        self._listed: dict[SubjectId, str] = {}
        self._tasks = asyncio.TaskGroup()
        self._astir = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._ticking = self._tasks.create_task(self._tick(), name="runner tick")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release every drive: no new claims, actions get their time, then the subject is given up."""
        self._closing = True
        for drive in self._drives.values():
            drive.stop()
        for drive in list(self._drives.values()):
            await drive.ended.wait()
        self._ticking.cancel()
        # Not told of `error`: the group would wrap it into one of its own, and who waits for Transient misses it.
        await self._tasks.__aexit__(None, None, None)

    @property
    def full(self) -> bool:
        """Whether this replica drives as much as it may, or is closing."""
        return self._closing or len(self._drives) >= self._limits.max_active_runs

    def drives(self, subject: SubjectId) -> bool:
        """Whether this replica drives the subject now."""
        return subject in self._drives

    @contextmanager
    def watching(self, subject: Subject) -> Iterator[None]:
        """Meanwhile commits of other replicas are noticed, and a driver that died is replaced."""
        self._watched[subject.id] = self._watched.get(subject.id, 0) + 1
        self._astir.set()
        try:
            yield
        finally:
            left = self._watched[subject.id] - 1
            if left:
                self._watched[subject.id] = left
            else:
                del self._watched[subject.id]

    # --- beginning ------------------------------------------------------------------------------

    async def begin(self, subject: Subject, said: Callable[[View[Any]], Sequence[Event]]) -> None:
        """Append what `said` answers, and drive the subject if nobody does."""
        drive = self._drive(subject)
        claimed = False

        def decide(view: View[Any]) -> Entry:
            nonlocal claimed
            events = said(view)
            control = view.control
            sleeping = control.waiting is not None and all(isinstance(event, Accepted) for event in events)
            claimed = bool(events) and not control.driver and not sleeping and not self._closing
            return drive.claim(view, before=events) if claimed else Entry(events)

        with self._beginning_of(subject):
            commit = await self._entered(subject, decide)
            if commit is not None and claimed:
                self._launch(drive)
            elif subject.id not in self._drives:
                self._leave(subject)

    @contextmanager
    def _beginning_of(self, subject: Subject) -> Iterator[None]:
        """Meanwhile the tick does not take the subject for an orphan."""
        self._beginning[subject.id] = self._beginning.get(subject.id, 0) + 1
        try:
            yield
        finally:
            self._beginning[subject.id] -= 1
            if not self._beginning[subject.id]:
                del self._beginning[subject.id]

    async def _entered(self, subject: Subject, decide: Decide) -> Stamp | None:
        """Commit and be listed, both at once: what is accepted is acknowledged when both are durable."""
        self._listed[subject.id] = subject.family
        if self._presence.has(subject.id):
            return await subject.commit(decide)
        _, commit = await asyncio.gather(self._presence.enter(subject.id, subject.family), subject.commit(decide))
        return commit

    def _drive(self, subject: Subject) -> Drive:
        return Drive(
            subject=subject,
            driver=self._ids.new()[-12:],
            slot=self.slot,
            clock=self._clock,
            limits=self._limits,
            metrics=self._metrics,
            on_hosted=lambda run, generation: self._host(subject, run, generation),
        )

    def _launch(self, drive: Drive) -> None:
        self._drives[drive.subject.id] = drive
        drive.subject.pins += 1
        self._metrics.active_runs.set(len(self._drives))
        self._metrics.claims.add(1, kind=drive.subject.family)
        self._astir.set()
        self._tasks.create_task(self._run(drive), name=f"drive {drive.subject.id}")

    async def _run(self, drive: Drive) -> None:
        subject = drive.subject
        before = set(subject.control.closed)
        try:
            await drive.run()
        except Exception as error:  # noqa: BLE001 - a defect in one kind must not end the other drives; it is parked
            drive.outcome = "broken"
            log.failure("drive_failed", error, subject=subject.id)
            self._metrics.parked_runs.add(1, reason="internal")
        finally:
            subject.pins -= 1
            del self._drives[subject.id]
            self._metrics.active_runs.set(len(self._drives))
        await self._after(drive, before)

    async def _after(self, drive: Drive, before: set[int]) -> None:
        subject = drive.subject
        if drive.outcome == "broken":
            self._subjects.drop(subject.id)
            return
        if drive.outcome == "released":
            return  # still listed, so that another life or replica adopts it at once
        if drive.outcome == "waiting" and self.hosts.unconfirmed:
            return  # leaves when its host is confirmed
        self._leave(subject)
        for info in subject.control.closed.values():
            if info.n in before:
                continue
            subject.kind.ended(run_id(subject.id, info.n), info)
            if info.generation:
                await self.hosts.finished(Hosting(subject.id, subject.family, info.n, info.generation))
        if subject.log.segment_due:
            await self._close_segment(subject)

    async def _close_segment(self, subject: Subject) -> None:
        try:
            await subject.close_segment()
        except (Transient, NotFound) as error:
            log.warning("segment_not_closed", subject=subject.id, code=error.code)  # due still; next time

    def _host(self, subject: Subject, run: int, generation: int) -> None:
        hosting = Hosting(subject.id, subject.family, run, generation)

        def confirmed() -> None:
            if subject.id not in self._drives:
                self._leave(subject)

        self._tasks.create_task(self.hosts.start(hosting, confirmed), name=f"host {hosting.run_id}")
        self._astir.set()

    def _leave(self, subject: Subject) -> None:
        self._listed.pop(subject.id, None)
        self._presence.leave(subject.id)

    # --- tending --------------------------------------------------------------------------------

    async def tend(self, subject: Subject) -> None:
        """After something was appended or found: see to it that somebody drives what can go on."""
        drive = self._drives.get(subject.id)
        if drive is not None:
            drive.nudge()
            return
        control = subject.control
        if control.current is None or self._closing:
            return
        if control.waiting is None:
            await (self._replace(subject) if control.driver else self.take(subject))
        hosting = hosting_of(subject)
        if hosting is not None:
            await self.hosts.wake(hosting)

    async def take(self, subject: Subject, supersede: str = "") -> bool:
        """Claim and drive; False when somebody else does, or there is nothing to drive."""
        if self._closing or subject.id in self._drives:
            return subject.id in self._drives
        drive = self._drive(subject)

        def decide(view: View[Any]) -> Entry:
            if view.control.current is None:
                return Entry(())
            if view.control.driver == drive.driver:
                return drive.again(view)
            return drive.claim(view, supersede=supersede)

        with self._subjects.pinned(subject), self._beginning_of(subject):
            try:
                commit = await self._entered(subject, decide)
            except Superseded:
                return False
            owned = subject.control.driver == drive.driver or commit is not None
            if owned and subject.id not in self._drives:
                self._launch(drive)
            elif not owned:
                self._leave(subject)
        return owned

    async def adopt_own(self) -> None:
        """Carry on what the former life of this slot left."""
        for subject, family in (await self._presence.restore()).items():
            if family in self._stores:
                await self.adopt(subject, family, self.slot, "restart")

    async def adopt(self, subject_id: SubjectId, family: str, slot: str, reason: str) -> None:
        """Take over a subject that a replica of `slot`, now gone, drove or was about to host."""
        subject = self._open_subject(subject_id, family)
        try:
            known = await subject.open()
            if known:
                await subject.refresh()
        except (Broken, NotFound) as error:
            log.failure("not_adopted", error, subject=subject_id)
            self._leave(subject)
            return
        control = subject.control
        if not known or control.current is None or subject_id in self._drives:
            if subject_id not in self._drives:
                self._leave(subject)
            return
        self._metrics.adoptions.add(1, reason=reason)
        hosting = hosting_of(subject)
        if control.waiting is not None and hosting is not None:
            self._host(subject, hosting.run, hosting.generation)
        elif not control.driver or control.slot == slot:
            await self.take(subject, supersede=control.driver)
        else:
            self._leave(subject)

    async def rehost(self, hosting: Hosting, *, fresh: bool) -> None:
        """Give an open run whose host is gone a host again, `fresh` under a new generation; unlist an ended one."""
        subject = self._open_subject(hosting.subject, hosting.family)
        await subject.open()
        with self._subjects.pinned(subject):
            await subject.refresh()
            run = subject.control.open.get(hosting.run)
            if run is None:
                await self.hosts.forget(hosting.run_id)
                return
            if fresh and run.generation == hosting.generation:
                await subject.commit(lambda view: Entry([Hosted(hosting.run, hosting.generation + 1)]))
                log.warning("rehosted", run=hosting.run_id, generation=hosting.generation + 1)
            again = hosting_of(subject)
            if again is not None and again.run == hosting.run:
                self._host(subject, again.run, again.generation)

    async def drive_hosted(self, input: JsonObject) -> JsonObject:
        """What a host asks for: drive the run until it ends or waits. At-least-once, so it joins what is going on."""
        subject = self._open_subject(SubjectId(str(input["subject"])), str(input["family"]))
        number = int(str(input["run"]))
        await subject.open()
        with self._subjects.pinned(subject):
            await subject.refresh()
            while subject.control.open.get(number) is not None:
                drive = self._drives.get(subject.id)
                if drive is not None:
                    await drive.ended.wait()
                    if drive.outcome == "released":
                        raise Transient("replica_closing", "this replica is closing; another one drives the run")
                elif not await self._go_on(subject):
                    return self._rest(subject)
            return {"done": True}

    async def _go_on(self, subject: Subject) -> bool:
        """Take the subject if nobody living drives it and there is something to do."""
        control = subject.control
        if self._closing:
            raise Transient("replica_closing", "this replica is closing; another one drives the run")
        if control.driver:
            return await self._replace(subject)
        asleep = control.waiting is not None and rest(control, self._clock)["seconds"] != 0
        return not asleep and await self.take(subject)

    def _rest(self, subject: Subject) -> JsonObject:
        return {"done": False, "seconds": BUSY_S} if subject.control.driver else rest(subject.control, self._clock)

    async def _replace(self, subject: Subject) -> bool:
        """Take over from a driver whose replica no longer beats."""
        control = subject.control
        replica = await self.replicas.read(Slot(control.slot))
        own_past = control.slot == self.slot
        if own_past or replica is None or subject.id not in replica.subjects or self.watcher.stale(replica):
            await subject.refresh()
            if subject.control.driver == control.driver and subject.id not in self._drives:
                self._metrics.adoptions.add(1, reason="stale")
                return await self.take(subject, supersede=control.driver)
        return False

    async def runs(self) -> list[JsonObject]:
        """The listed runs, and those driven here."""
        listed = dict(await self.index.all())
        for subject, drive in self._drives.items():
            run = drive.subject.control.current
            if run is not None:
                entry: JsonObject = {"subject": subject, "family": drive.subject.family, "run": run.n, "at": run.at}
                listed.setdefault(run_id(subject, run.n), entry)
        return [{"id": RunId(run), **entry} for run, entry in listed.items()]

    # --- the tick -------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """Once a second while anything is going on here; not at all otherwise."""
        beaten = self._clock.monotonic()
        while True:
            if not self._drives and not self._watched and self._presence.idle and not self.hosts.unconfirmed:
                self._astir.clear()
                await self._astir.wait()
            await self._clock.sleep(self._limits.poll_s)
            try:
                if self._clock.monotonic() - beaten >= self._limits.beat_s:
                    beaten = self._clock.monotonic()
                    await self._presence.beat(self._limits.beat_s)
                await self._look_around()
            except Transient as error:
                log.warning("store_away", code=error.code)
            except PerdureError as error:
                log.failure("tick_failed", error)

    async def _look_around(self) -> None:
        self._host_what_lasts()
        await self.hosts.retry()
        await self._poll()
        for subject_id, family in list(self._listed.items()):
            held = subject_id in self._drives or subject_id in self._beginning
            if not held and not self.hosts.unconfirmed and not self._closing:
                await self.adopt(subject_id, family, self.slot, "orphan")
        for subject_id in list(self._watched):
            subject = self._subjects.get(subject_id)
            if subject is not None and subject_id not in self._drives and subject.control.driver:
                await self._replace(subject)

    def _host_what_lasts(self) -> None:
        now = self._clock.monotonic()
        for drive in self._drives.values():
            if now - drive.began < self._limits.host_after_s:
                continue
            run = drive.subject.control.current
            if run is not None and not run.generation:
                drive.nudge(host=True)
            if drive.subject.log.segment_due:
                self._tasks.create_task(self._close_segment(drive.subject), name="segment")

    async def _poll(self) -> None:
        """One bulk read per store tells which subjects have news from elsewhere."""
        busy = [d.subject for d in self._drives.values() if d.busy]
        watched = [s for s in map(self._subjects.get, self._watched) if s is not None]
        subjects = {s.id: s for s in [*busy, *watched]}
        for family, store in {s.family: self._stores[s.family] for s in subjects.values()}.items():
            keys = {s.log.next_key: s for s in subjects.values() if s.family == family}
            for key in await store.get_many(list(keys)):
                await keys[key].refresh()
