"""Runs that last get a host in the workflow engine: it keeps them alive, waits, and asks a living replica to drive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from perdure.clock import Clock, parse_rfc3339, rfc3339
from perdure.errors import NotFound, PerdureError, Transient
from perdure.log.subject import run_id
from perdure.observability.logs import get_logger
from perdure.run.control import Control
from perdure.run.host import host_instance
from perdure.run.index import RunIndex
from perdure.run.subject import Subject
from perdure.sidecar.ports import Engine, HostStatus
from perdure.types import JsonObject, RunId, SubjectId

log = get_logger(__name__)

BUSY_S = 5.0
"""How long a host waits before it asks again whether another replica's driver is done: half the stale time,
so that a dead driver is noticed at the second question."""

WAKE_LOST_S = 3600.0
"""A host without a timer looks again this often: `wake` is only a hint."""


@dataclass(frozen=True, slots=True)
class Hosting:
    """A run and the generation of its host, which is to wake at `until` (RFC 3339), if at any time."""

    subject: SubjectId
    family: str
    run: int
    generation: int
    until: str = field(default="", compare=False)

    @property
    def run_id(self) -> RunId:
        """The run's id."""
        return run_id(self.subject, self.run)

    @property
    def instance(self) -> str:
        """The engine's id of the host."""
        return host_instance(self.run_id, self.generation)

    @property
    def input(self) -> JsonObject:
        """What the host passes to whoever drives."""
        return {"subject": self.subject, "family": self.family, "run": self.run}


class Hosts:
    """Starts, wakes and forgets hosts; what the engine could not take yet is kept and tried again."""

    def __init__(self, engine: Engine, index: RunIndex, clock: Clock) -> None:
        self._engine = engine
        self._index = index
        self._clock = clock
        self._waiting: dict[RunId, tuple[Hosting, Callable[[], None]]] = {}
        self._trying: set[RunId] = set()
        self._ending: dict[RunId, tuple[Hosting, Callable[[], None]]] = {}

    @property
    def unconfirmed(self) -> bool:
        """Whether a host still has to be started, or told that its run has ended."""
        return bool(self._waiting or self._ending)

    def expects(self, subject: SubjectId) -> bool:
        """Whether a host of `subject` still has to be started, or told that its run has ended."""
        return any(h.subject == subject for h, _ in (*self._waiting.values(), *self._ending.values()))

    def expect(self, hosting: Hosting, confirmed: Callable[[], None]) -> None:
        """Take note that this host has to exist; `confirmed` is called once the engine has it."""
        self._waiting[hosting.run_id] = (hosting, confirmed)

    async def start(self, hosting: Hosting) -> None:
        """Start an expected host; `retry` goes on with it where the engine is away."""
        expected = self._waiting.get(hosting.run_id)
        if expected is not None:
            await self._try(*expected, log.warning)

    async def retry(self) -> None:
        """Try again what the engine could not take."""
        for hosting, confirmed in list(self._waiting.values()):
            await self._try(hosting, confirmed, log.debug)  # what is wrong was said the first time
        for hosting, _ in list(self._ending.values()):
            await self.finish(hosting)

    async def _try(self, hosting: Hosting, confirmed: Callable[[], None], say: Callable[..., None]) -> None:
        if hosting.run_id in self._trying:
            return
        self._trying.add(hosting.run_id)
        try:
            entry: JsonObject = {
                **hosting.input,
                "generation": hosting.generation,
                "until": hosting.until,
                "at": rfc3339(self._clock.now()),
            }
            await self._index.add(hosting.run_id, entry)
            await self._engine.start(hosting.instance, hosting.input)
        except PerdureError as error:
            say("host_not_started", run=hosting.run_id, code=error.code)
            return
        finally:
            self._trying.discard(hosting.run_id)
        if self._waiting.get(hosting.run_id, (None,))[0] == hosting:
            del self._waiting[hosting.run_id]
            confirmed()

    def expect_end(self, hosting: Hosting, confirmed: Callable[[], None]) -> None:
        """Take note that the run has ended and its host has to hear of it; `confirmed` is called once it has."""
        self._waiting.pop(hosting.run_id, None)
        self._ending[hosting.run_id] = (hosting, confirmed)

    async def finish(self, hosting: Hosting) -> None:
        """Let the host see that its run has ended, and unlist the run; `retry` goes on where the engine is away."""
        if hosting.run_id in self._trying:
            return  # else it would be listed again after it was unlisted
        try:
            with suppress(NotFound):  # it has seen it, or never was
                await self._engine.wake(hosting.instance)
            await self._index.remove(hosting.run_id)
        except Transient as error:
            log.debug("run_not_unlisted", run=hosting.run_id, code=error.code)
            return
        ended = self._ending.pop(hosting.run_id, None)
        if ended is not None:
            ended[1]()

    async def wake(self, hosting: Hosting) -> None:
        """End the host's wait. A hint: a lost one costs time, never work."""
        try:
            await self._engine.wake(hosting.instance)
        except (Transient, NotFound) as error:
            log.debug("wake_lost", run=hosting.run_id, code=error.code)

    async def status(self, hosting: Hosting) -> HostStatus | None:
        """What the engine says of the host."""
        return await self._engine.status(hosting.instance)

    async def forget(self, run: RunId) -> None:
        """Unlist a run that has ended."""
        await self._index.remove(run)


def rest(control: Control, clock: Clock) -> JsonObject:
    """What a host is told after a drive that ended in a wait: how long to sleep at most."""
    waiting = control.waiting
    seconds = WAKE_LOST_S
    if waiting is not None and waiting.until:
        seconds = max(0.0, (parse_rfc3339(waiting.until) - clock.now()).total_seconds())
    return {"done": False, "seconds": seconds}


def hosting_of(subject: Subject) -> Hosting | None:
    """The current run's host, if it has one."""
    run = subject.control.current
    if run is None or not run.generation:
        return None
    return Hosting(subject.id, subject.family, run.n, run.generation)
