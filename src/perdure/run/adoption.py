"""The sweep: once in a while one replica adopts what dead ones left, and re-hosts runs whose host is gone."""

from __future__ import annotations

from perdure.clock import Clock, parse_rfc3339
from perdure.errors import Broken, NotFound, PerdureError, Transient
from perdure.observability.logs import get_logger
from perdure.run.crew import Crew
from perdure.run.hosting import Hosting
from perdure.run.presence import Replica
from perdure.run.rescue import Rescue
from perdure.sidecar.ports import HostStatus, Jobs
from perdure.types import JsonObject, SubjectId

log = get_logger(__name__)

SWEEP = "perdure-sweep"

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
"""Between two tries to schedule the sweep: no longer than a sweep would be away anyway."""


class Adoption:
    """Handles the job `perdure-sweep`, which reaches one replica of the app at a time."""

    def __init__(self, crew: Crew, rescue: Rescue, jobs: Jobs, *, clock: Clock) -> None:
        self._crew = crew
        self._rescue = rescue
        self._jobs = jobs
        self._clock = clock
        self._limits = crew.limits

    def declare(self) -> None:
        """Say who handles the job; before the service starts."""
        self._jobs.on(SWEEP, self.sweep)

    async def schedule(self) -> None:
        """Have the job come, as soon as the scheduler takes it. That one may be away just when everything starts, so
        nothing else should wait for this."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._jobs.schedule(SWEEP, f"@every {self._limits.sweep_every_s}s")
            except Transient as error:
                if pause == FIRST_PAUSE_S:
                    log.warning("sweep_put_off", code=error.code)
            except PerdureError as error:
                log.failure("sweep_not_scheduled", error)  # repeating would meet the same; runs are driven without it
                return
            else:
                return
            await self._clock.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def sweep(self, data: JsonObject) -> None:
        """Adopt what dead replicas left. Who is not known to be dead yet is looked at again after a stale time."""
        if await self._look():
            await self._clock.sleep(self._limits.stale_s)
            await self._look()
        await self._rehost()

    async def _look(self) -> bool:
        """Adopt from those that have not moved for the stale time; whether there are others that drive something."""
        replicas = await self._crew.replicas.all()
        others = [replica for slot, replica in replicas.items() if slot != self._crew.slot and replica.subjects]
        gone = [replica for replica in others if self._crew.watcher.stale(replica)]
        for replica in gone:
            await self._adopt(replica)
        return len(gone) < len(others)

    async def _adopt(self, gone: Replica) -> None:
        """Adopt, which lists the subjects here, before the dead replica's list is retired."""
        log.warning("replica_gone", slot=gone.slot, subjects=len(gone.subjects))
        left = {
            subject: family
            for subject, family in gone.subjects.items()
            if not await self._rescue.adopt(subject, family, gone.slot, "stale")
        }
        await self._crew.replicas.retire(gone, left)

    async def _rehost(self) -> None:
        for entry in (await self._crew.index.all()).values():
            subject, family = SubjectId(str(entry["subject"])), str(entry["family"])
            hosting = Hosting(subject, family, int(str(entry["run"])), int(str(entry["generation"])))
            try:
                status = await self._crew.hosts.status(hosting)
                if status is not HostStatus.RUNNING:
                    await self._rescue.rehost(hosting, fresh=status is not None)
                elif self._overdue(str(entry.get("until", ""))):
                    log.warning("host_overdue", run=hosting.run_id, until=entry["until"])
                    self._crew.spawn(self._rescue.drive_hosted(hosting.input), name=f"overdue {hosting.run_id}")
            except (Broken, NotFound) as error:
                log.failure("not_rehosted", error, run=hosting.run_id)  # the others must not wait for this one

    def _overdue(self, until: str) -> bool:
        """Whether a host that runs has slept through the moment at which it was to wake: its timer is lost."""
        late_s = (self._clock.now() - parse_rfc3339(until)).total_seconds() if until else 0.0
        return late_s > self._crew.limits.overdue_s
