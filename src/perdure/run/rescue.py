"""Taking over what others left: a former life of this slot, a dead replica, a lost host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure.clock import Clock
from perdure.errors import Broken, NotFound, Transient
from perdure.log.subject import run_id
from perdure.observability.logs import get_logger
from perdure.run.crew import Crew
from perdure.run.event import Hosted
from perdure.run.hosting import BUSY_S, Hosting, hosting_of, rest
from perdure.run.plan import View
from perdure.run.subject import Entry, Subject
from perdure.types import JsonObject, SubjectId

log = get_logger(__name__)

ADOPTED_FIRST = 32
"""Subjects that a replica opens, side by side, before it is ready again: they take some twentieths of a second."""

ADOPTED_BESIDE = 4
"""Of the rest, side by side: few, so that requests and the first ones' drives go before them."""

NEWER = frozenset({"event_unknown", "commit_version", "kind_unknown"})
"""What a newer release wrote: left listed, for a replica that knows it."""


class Rescue:
    """Adopts subjects for a crew."""

    def __init__(self, crew: Crew, open_subject: Callable[[SubjectId, str], Subject], clock: Clock) -> None:
        self._crew = crew
        self._open_subject = open_subject
        self._clock = clock

    async def adopt_own(self) -> None:
        """Carry on what the former life of this slot left: now what it listed last, and beside everything else the
        rest, for after a busy second that is hundreds of subjects, and most of them have ended.

        Raises: Transient when a store is away.
        """
        left = (await self._crew.presence.restore()).items()
        waiting = [(subject, family) for subject, family in left if family in self._crew.stores]
        await self._adopt_own(waiting[-ADOPTED_FIRST:], ADOPTED_FIRST)
        if rest := waiting[:-ADOPTED_FIRST]:
            self._crew.listed.update(rest)  # each round tries again what an absent store prevents now
            self._crew.spawn(self._adopt_own(rest, ADOPTED_BESIDE), name="adopt own")

    async def _adopt_own(self, waiting: list[tuple[SubjectId, str]], at_once: int) -> None:
        async def adopting() -> None:
            while waiting and not self._crew.closing:
                await self.adopt(*waiting.pop(), self._crew.slot, "restart")

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(at_once, len(waiting))):
                    group.create_task(adopting(), name="adopt own")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors  # not the group: who waits for Transient would miss it

    async def adopt(self, subject_id: SubjectId, family: str, slot: str, reason: str) -> bool:
        """Take over a subject that a replica of `slot`, now gone, drove or was about to host.

        False when that is not possible here; it should then stay listed. Raises: Transient.
        """
        subject = self._open_subject(subject_id, family)
        try:
            with self._crew.subjects.pinned(subject):
                await self._adopt(subject, slot, reason)
        except Transient:
            raise
        except (Broken, NotFound) as error:
            log.failure("not_adopted", error, subject=subject_id)
            if error.code in NEWER:
                return self._put_aside(subject_id)
            self._crew.leave(subject_id)
        except Exception as error:  # noqa: BLE001 - a defect of one kind must not keep other runs from being adopted
            log.failure("not_adopted", error, subject=subject_id)
            return self._put_aside(subject_id)
        return True

    def _put_aside(self, subject: SubjectId) -> bool:
        """Not tried again in this life, but left in the document if it is there."""
        self._crew.listed.pop(subject, None)
        return False

    async def _adopt(self, subject: Subject, slot: str, reason: str) -> None:
        crew = self._crew
        loaded = subject.view is not None
        known = await subject.open()
        if known and loaded:  # else it is as new as it gets
            await subject.refresh()
        control = subject.control
        if known:
            await self._end_hosts(subject)
        if crew.held(subject.id):
            return
        if known and subject.id in crew.uncertain:
            await crew.take(subject, supersede=control.driver)
            return
        if not known or control.current is None:
            if not crew.hosts.expects(subject.id):
                crew.leave(subject.id)
            return
        hosting = hosting_of(subject)
        if control.waiting is not None and hosting is not None:
            crew.metrics.adoptions.add(1, reason=reason)
            crew.listed[subject.id] = subject.family
            await crew.presence.enter(subject.id, subject.family)
            crew.host(subject, hosting.run, hosting.generation)
        elif not control.driver or control.slot == slot:
            crew.metrics.adoptions.add(1, reason=reason)
            await crew.take(subject, supersede=control.driver)
        else:
            crew.leave(subject.id)

    async def _end_hosts(self, subject: Subject) -> None:
        """Whoever drove the subject may have died after a run had ended and before its host was told."""
        hosted = [info for info in subject.control.closed.values() if info.generation]
        listed = await self._crew.index.all() if hosted else {}
        left = [info for info in hosted if run_id(subject.id, info.n) in listed]
        for hosting in self._crew.expect_ends(subject, left):
            self._crew.spawn(self._crew.hosts.finish(hosting), name=f"end host {hosting.run_id}")
        self._crew.astir.set()

    async def rehost(self, hosting: Hosting, *, fresh: bool) -> None:
        """Give an open run whose host is gone a host again, `fresh` under a new generation; unlist an ended one."""
        subject = self._open_subject(hosting.subject, hosting.family)
        with self._crew.subjects.pinned(subject):
            await subject.open()
            await subject.refresh()
            if subject.control.open.get(hosting.run) is None:
                await self._crew.hosts.forget(hosting.run_id)
                return
            if fresh:
                await subject.commit(lambda view: Entry(_next_generation(view, hosting)))
                log.warning("rehosted", run=hosting.run_id, generation=hosting.generation + 1)
            again = hosting_of(subject)
            if again is not None and again.run == hosting.run:
                self._crew.host(subject, again.run, again.generation)

    async def drive_hosted(self, input: JsonObject) -> JsonObject:
        """What a host asks for: drive the run until it ends or waits. At-least-once, so it joins what is going on."""
        subject = self._open_subject(SubjectId(str(input["subject"])), str(input["family"]))
        number = int(str(input["run"]))
        with self._crew.subjects.pinned(subject):
            await subject.open()
            await subject.refresh()
            while subject.control.open.get(number) is not None:
                drive = self._crew.drives.get(subject.id)
                if drive is not None:
                    await drive.ended.wait()
                    if drive.outcome == "released":
                        raise _closing()
                elif not await self._go_on(subject):
                    return self._rest(subject)
            return {"done": True}

    async def _go_on(self, subject: Subject) -> bool:
        """Take the subject if nobody living drives it and there is something to do."""
        control = subject.control
        if self._crew.closing:
            raise _closing()
        if control.driver:
            return await self._crew.replace(subject)
        asleep = control.waiting is not None and rest(control, self._clock)["seconds"] != 0
        return not asleep and await self._crew.take(subject)

    def _rest(self, subject: Subject) -> JsonObject:
        busy = subject.control.driver or self._crew.held(subject.id)
        return {"done": False, "seconds": BUSY_S} if busy else rest(subject.control, self._clock)


def _next_generation(view: View[object], lost: Hosting) -> tuple[Hosted, ...]:
    run = view.control.open.get(lost.run)
    return (Hosted(lost.run, lost.generation + 1),) if run and run.generation == lost.generation else ()


def _closing() -> Transient:
    return Transient("replica_closing", "this replica is closing; another one drives the run")
