"""The drives of one replica: who begins them, who keeps them company, and what follows when one ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from perdure.clock import Clock, Ids
from perdure.errors import NotFound, Transient
from perdure.log.commit import Stamp
from perdure.log.subject import run_id
from perdure.observability.logs import get_logger
from perdure.observability.metrics import Metrics
from perdure.run.control import Control, RunInfo
from perdure.run.driver import Drive
from perdure.run.event import Accepted, Event
from perdure.run.hosting import Hosting, Hosts, hosting_of
from perdure.run.index import RunIndex
from perdure.run.limits import RunLimits
from perdure.run.plan import View
from perdure.run.presence import Presence, Replicas, Watcher
from perdure.run.subject import Decide, Entry, Subject, Subjects, Superseded
from perdure.sidecar.ports import Engine, StateStore
from perdure.types import Slot, SubjectId

log = get_logger(__name__)


class Crew:
    """Begins, tends and ends drives.

    `listed` are the subjects that this replica's document names or is about to name: another life or replica adopts
    them. `uncertain` are drives whose claim was interrupted: if it was written, they are its owners.
    """

    def __init__(
        self,
        app_id: str,
        slot: Slot,
        stores: Mapping[str, StateStore],
        engine: Engine,
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
        self.presence = Presence(self.replicas, slot, ids.new(), clock, limits.stale_s)
        self.slot = slot
        self.stores = stores
        self.subjects = subjects
        self.metrics = metrics
        self.limits = limits
        self.drives: dict[SubjectId, Drive] = {}
        self.watched: dict[SubjectId, int] = {}
        self.beginning: dict[SubjectId, int] = {}
        self.listed: dict[SubjectId, str] = {}
        self.uncertain: dict[SubjectId, Drive] = {}
        self.astir = asyncio.Event()
        self.closing = False
        self._clock = clock
        self._ids = ids
        self._life = ids.new()[-6:]
        self._tasks = asyncio.TaskGroup()
        self._looked_at: set[SubjectId] = set()
        self._spawned: set[asyncio.Task[None]] = set()
        self._fewer = asyncio.Event()
        self._ended = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release every drive: no new claims, actions get their time, then the subject is given up."""
        self.closing = True
        try:
            while self.drives or self.beginning:
                self._fewer.clear()
                for drive in self.drives.values():
                    drive.stop()
                await self._fewer.wait()
        except BaseException:
            for task in self._spawned:
                task.cancel()
            raise
        finally:
            self._ended = True
            # Not told of `error`: the group would wrap it into one of its own, and who waits for Transient misses it.
            await self._tasks.__aexit__(None, None, None)

    def held(self, subject: SubjectId) -> bool:
        """Whether this replica drives the subject, or is about to."""
        return subject in self.drives or subject in self.beginning

    def spawn(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Do `work` beside everything else; not at all once the crew has ended."""
        if self._ended:
            work.close()
            return
        task = self._tasks.create_task(_contained(work, name), name=name)
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        task.add_done_callback(lambda _: work.close())  # a task that is cancelled before it began never awaits it

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
            claimed = bool(events) and not control.driver and not sleeping and not self.closing
            return drive.claim(view, before=events) if claimed else Entry(events)

        try:
            with self._beginning_of(subject):
                commit = await self._entered(subject, decide)
                if commit is not None and claimed:
                    self._launch(drive)
                    return
            await self._revive(subject)
        except (Transient, asyncio.CancelledError):
            if claimed:
                self.uncertain[subject.id] = drive
            raise
        finally:
            self._give_way(subject)

    async def tell(self, subject: Subject, decide: Decide) -> None:
        """Append somebody's order; it is durable, and somebody will act on it, when this returns."""
        try:
            if subject.id in self.drives:
                await subject.commit(decide)
            else:
                with self._beginning_of(subject):
                    await self._entered(subject, decide)
            await self.tend(subject)
        finally:
            self._give_way(subject)

    async def tend(self, subject: Subject) -> None:
        """After something was appended or found: see to it that somebody drives what can go on."""
        drive = self.drives.get(subject.id)
        if drive is not None:
            drive.nudge()
            return
        await self._revive(subject)
        if subject.control.waiting is None and subject.control.driver and not self.closing:
            await self.replace(subject)
        hosting = hosting_of(subject)
        if hosting is not None and not self.closing and not self.held(subject.id):
            await self.hosts.wake(hosting)

    async def replace(self, subject: Subject) -> bool:
        """Take over from a driver whose replica no longer beats, or never listed the subject."""
        control = subject.control
        if self.held(subject.id):
            return False
        replica = await self.replicas.read(Slot(control.slot))
        own_past = control.slot == self.slot
        unlisted = replica is None or subject.id not in replica.subjects
        if unlisted and not own_past and not self.watcher.forgotten(control.driver):
            self._look_again(subject)
            return False
        if own_past or replica is None or unlisted or self.watcher.stale(replica):
            await subject.refresh()
            if subject.control.driver == control.driver and not self.held(subject.id):
                self.metrics.adoptions.add(1, reason="stale")
                return await self.take(subject, supersede=control.driver)
        return False

    def _look_again(self, subject: Subject) -> None:
        """Whether its driver lists it by then, or anybody waits for it, or not."""
        if subject.id not in self._looked_at:
            self._looked_at.add(subject.id)
            self.spawn(self._look_later(subject), name=f"look again {subject.id}")

    async def _look_later(self, subject: Subject) -> None:
        with self.subjects.pinned(subject):
            try:
                await self._clock.sleep(self.watcher.grace_s)
                await subject.refresh()
            finally:
                self._looked_at.discard(subject.id)
            if subject.control.driver:
                await self.replace(subject)

    async def _revive(self, subject: Subject) -> None:
        """Take a subject that can go on and has no driver, or one of this replica that never began to drive."""
        left = subject.id in self.uncertain or self._forsaken(subject.control)
        if self.held(subject.id) or not left:
            return
        try:
            await self.take(subject, supersede=subject.control.driver)
        except Transient as error:
            log.warning("take_put_off", subject=subject.id, code=error.code)  # listed, so the next round does it

    def _forsaken(self, control: Control) -> bool:
        if control.current is None:
            return False
        return control.slot == self.slot if control.driver else control.waiting is None

    async def take(self, subject: Subject, supersede: str = "") -> bool:
        """Claim and drive; False when somebody else does, or there is nothing to drive."""
        if self.closing or subject.id in self.drives:
            return subject.id in self.drives
        drive = self.uncertain.pop(subject.id, None) or self._drive(subject)

        def decide(view: View[Any]) -> Entry:
            if view.control.driver == drive.driver:
                return drive.again(view)
            if view.control.current is None:
                return Entry(())
            return drive.claim(view, supersede=supersede)

        mine = False
        try:
            with self.subjects.pinned(subject), self._beginning_of(subject):
                commit = await self._entered(subject, decide)
                mine = commit is not None or subject.control.driver == drive.driver
                if mine:
                    self._launch(drive)
        except Superseded:
            mine = False
        except (Transient, asyncio.CancelledError):
            self.uncertain[subject.id] = drive
            raise
        finally:
            self._give_way(subject)
        return mine

    @contextmanager
    def _beginning_of(self, subject: Subject) -> Iterator[None]:
        """Meanwhile nobody takes the subject for an orphan."""
        try:
            with _counted(self.beginning, subject.id):
                yield
        finally:
            self._fewer.set()

    async def _entered(self, subject: Subject, decide: Decide) -> Stamp | None:
        """Commit and be listed, both at once: what is accepted is acknowledged when both are durable."""
        self.listed[subject.id] = subject.family
        self.astir.set()  # also when this is cut: whatever became of it is looked after then
        if self.presence.has(subject.id):
            return await subject.commit(decide)
        entering = self.presence.enter(subject.id, subject.family)
        entered, commit = await asyncio.gather(entering, subject.commit(decide), return_exceptions=True)
        if isinstance(commit, BaseException):
            raise commit
        if isinstance(entered, BaseException):
            raise entered
        return commit

    def _drive(self, subject: Subject) -> Drive:
        return Drive(
            subject=subject,
            driver=self._life + self._ids.new()[-6:],
            life=self._life,
            slot=self.slot,
            clock=self._clock,
            limits=self.limits,
            metrics=self.metrics,
            on_hosted=lambda run, generation: self.host(subject, run, generation),
        )

    # --- driving and ending ---------------------------------------------------------------------

    def _launch(self, drive: Drive) -> None:
        self.drives[drive.subject.id] = drive
        drive.subject.pins += 1
        self.metrics.active_runs.set(len(self.drives))
        self.metrics.claims.add(1, kind=drive.subject.family)
        self.astir.set()
        if self.closing:
            drive.stop()
        self.spawn(self._run(drive), name=f"drive {drive.subject.id}")

    async def _run(self, drive: Drive) -> None:
        subject = drive.subject
        try:
            await drive.run()
        except Exception as error:  # noqa: BLE001 - a defect in one kind must not end the other drives; it is parked
            drive.outcome = "broken"
            log.failure("drive_failed", error, subject=subject.id)
            self.metrics.parked_runs.add(1, reason="internal")
        finally:
            subject.pins -= 1
            if self.drives.get(subject.id) is drive:  # a superseded one may have a successor in this process
                del self.drives[subject.id]
            self.metrics.active_runs.set(len(self.drives))
            self._fewer.set()
        await self._after(drive)

    async def _after(self, drive: Drive) -> None:
        subject = drive.subject
        if drive.outcome == "broken":
            subject.distrust()
            return  # still listed: adopted anew, and parked when that comes to nothing again and again
        new = [info for info in subject.control.closed.values() if info.n not in drive.closed_before]
        ended = self.expect_ends(subject, new)
        if drive.outcome != "released":  # else still listed, so that another life or replica adopts it
            self._give_way(subject)
        if drive.outcome != "superseded":  # else its successor has told it
            for info in new:
                subject.kind.ended(run_id(subject.id, info.n), info)
        for hosting in ended:
            await self.hosts.finish(hosting)
        if subject.log.segment_due:
            await close_segment(subject)

    def host(self, subject: Subject, run: int, generation: int) -> None:
        """See to it that the run has its host; the subject stays listed until the engine has it."""
        waiting = subject.control.waiting
        hosting = Hosting(subject.id, subject.family, run, generation, waiting.until if waiting else "")
        self.hosts.expect(hosting, lambda: self._give_way(subject))
        self.spawn(self.hosts.start(hosting), name=f"host {hosting.run_id}")
        self.astir.set()

    def expect_ends(self, subject: Subject, ended: Iterable[RunInfo]) -> list[Hosting]:
        """The hosts that have to hear that their runs have ended; the subject stays listed until they have."""
        hostings = [Hosting(subject.id, subject.family, info.n, info.generation) for info in ended if info.generation]
        for hosting in hostings:
            self.hosts.expect_end(hosting, lambda: self._give_way(subject))
        return hostings

    def _give_way(self, subject: Subject) -> None:
        """Unlist what needs no adopter: nobody here holds it, and whatever is left to do is somebody else's."""
        if self.held(subject.id) or self.hosts.expects(subject.id):
            return
        if subject.unsure or subject.id in self.uncertain:
            return
        if not self._forsaken(subject.control):
            self.leave(subject.id)

    def leave(self, subject: SubjectId) -> None:
        """Unlist the subject."""
        self.listed.pop(subject, None)
        self.presence.leave(subject)


def full(crew: Crew) -> bool:
    """Whether this replica drives as much as it may, or is closing."""
    return crew.closing or len(crew.drives) + len(crew.beginning) >= crew.limits.max_active_runs


@contextmanager
def watching(crew: Crew, subject: Subject) -> Iterator[None]:
    """Meanwhile commits of other replicas are noticed, and a driver that died is replaced."""
    with _counted(crew.watched, subject.id):
        crew.astir.set()
        yield


async def close_segment(subject: Subject) -> None:
    """Close the segment that is due; it stays due when the store is away."""
    try:
        await subject.close_segment()
    except (Transient, NotFound) as error:
        log.warning("segment_not_closed", subject=subject.id, code=error.code)


@contextmanager
def _counted(counts: dict[SubjectId, int], key: SubjectId) -> Iterator[None]:
    counts[key] = counts.get(key, 0) + 1
    try:
        yield
    finally:
        counts[key] -= 1
        if not counts[key]:
            del counts[key]


async def _contained(work: Coroutine[Any, Any, object], name: str) -> None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - one task that fails must not end all drives of this replica
        log.failure("task_failed", error, task=name)
