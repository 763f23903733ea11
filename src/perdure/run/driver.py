"""The driver: fold, decide, do all actions side by side, append each result as it completes, decide again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from perdure.clock import Clock, parse_rfc3339, rfc3339
from perdure.effect import Effect
from perdure.errors import Broken, Transient
from perdure.log.commit import Stamp
from perdure.observability.logs import get_logger
from perdure.observability.metrics import Metrics
from perdure.run.control import Position
from perdure.run.doubts import asked_to_wait, possible_for
from perdure.run.event import (
    Claimed,
    Doubted,
    Event,
    Hosted,
    NotHappened,
    Released,
    Settled,
    TimerFired,
    Unreconciled,
)
from perdure.run.failures import failed, parked
from perdure.run.kind import Doing
from perdure.run.limits import DriveLimits
from perdure.run.plan import Mode, Plan, Start, View, fold_view, plan
from perdure.run.subject import Entry, LetGo, Subject, Superseded

log = get_logger(__name__)


@dataclass(slots=True)
class _Running:
    start: Start
    task: asyncio.Task[None]
    cancel: asyncio.Event


@dataclass(slots=True, eq=False)
class Drive:
    """One ownership of one subject, from claim to wait, end, loss or release."""

    subject: Subject
    driver: str
    slot: str
    life: str
    clock: Clock
    limits: DriveLimits
    metrics: Metrics
    on_hosted: Callable[[int, int], None]
    epoch: int = 0
    outcome: str = ""
    began: float = 0.0
    host_due: bool = False
    closed_before: frozenset[int] = frozenset()
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _made: Plan = field(default_factory=Plan)
    _made_at: float = 0.0
    _running: dict[str, _Running] = field(default_factory=dict)
    _started: set[str] = field(default_factory=set)
    _facts: list[Event] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _told: tuple[int, int, str] = (0, 0, "")
    _landed: Plan = field(default_factory=Plan)
    _stop_by: float = 0.0
    _put_off: Counter[str] = field(default_factory=Counter)

    # A claim is part of somebody else's commit (an accept, an adoption), so it is a pure entry.

    def claim(self, view: View[Any], before: Sequence[Event] = (), *, supersede: str = "") -> Entry:
        """The entry that takes the subject over, with all that follows at once.

        Raises: Superseded when a driver other than `supersede` owns it.
        """
        control = view.control
        if control.driver not in ("", supersede):
            raise Superseded
        self.epoch = control.epoch + 1
        self.began = self.clock.monotonic()
        self.closed_before = frozenset(control.closed)
        if control.claims >= self.limits.max_claims and control.current is not None:
            self.metrics.parked_runs.add(1, reason="poison")
            ending = parked(self.subject.id, control.current.n, control.claims)
            return self._planned(view, [*before, Claimed(self.slot), ending])
        due = [TimerFired(name) for name in self._due(control.waiting.timers if control.waiting else ())]
        return self._planned(view, [*before, Claimed(self.slot), *due])

    def again(self, view: View[Any]) -> Entry:
        """Go on after an interrupted claim, which was written as it turns out."""
        self.epoch = view.control.epoch
        return self._planned(view, ())

    def _due(self, timers: Sequence[tuple[str, str]]) -> list[str]:
        now = self.clock.now()
        return [name for name, moment in timers if parse_rfc3339(moment) <= now]

    def _planned(self, view: View[Any], facts: Sequence[Event]) -> Entry:
        self._made_at = self.clock.monotonic()
        at = Position(view.n + 1, 0, self._moment(0), self.epoch, self.driver)
        made = plan(
            self.subject.kind,
            view,
            facts,
            at=at,
            running=self._running.keys(),
            started=self._started,
            expires=self._moment,
            patience_s=self.limits.host_after_s,
        )
        self._made = made
        if made.wait is None and not self.host_due:
            return Entry(made.events, self.epoch, self.driver, at=at.at, view=made.view)
        after = made.view or view
        run = after.control.current
        if run is not None and not run.generation:
            hosted = (Hosted(run.n, 1),)
            after = fold_view(self.subject.kind, after, hosted, replace(at, i=len(made.events)))
            made = replace(made, events=(*made.events, *hosted))
        return Entry(made.events, self.epoch, self.driver, at=at.at, view=after)

    def _moment(self, seconds: float) -> str:
        return rfc3339(self.clock.now() + timedelta(seconds=seconds))

    async def run(self) -> None:
        """Drive until there is nothing to do. The claim has been committed. Sets `outcome` and `ended`."""
        self.subject.listeners.add(self._news)
        try:
            await self._driven()
        except Transient as error:  # passed on only when there is no more time: adoption carries on from the log
            log.warning("release_not_recorded", code=error.code, subject=self.subject.id)
        except Broken as error:
            self.outcome = "broken"
            self.metrics.parked_runs.add(1, reason=error.code)
            log.failure("run_parked", error, subject=self.subject.id)
        finally:
            self.subject.listeners.discard(self._news)
            await _cut(self._running.values())
            self.ended.set()

    async def _driven(self) -> None:
        self.outcome = "released"
        try:
            self.outcome = await self._loop()
        except Superseded:
            self.outcome = "superseded"
            await self._confess()

    def _news(self, commit: Stamp) -> None:
        if commit.driver != self.driver:
            self._wake.set()

    def nudge(self, *, host: bool = False) -> None:
        """Look again; with `host`, put the run under a host: it lasts."""
        self.host_due = self.host_due or host
        self._wake.set()

    def stop(self) -> None:
        """Finish what is in progress, for a while, then release the subject."""
        if not self._stopping:
            self._stop_by = self.clock.monotonic() + 2 * self.limits.shutdown_s
        self._stopping = True
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether actions are in progress."""
        return bool(self._running)

    async def _loop(self) -> str:
        while True:
            made = self._made
            self._apply(made)
            self._tell_host()
            if made.done or (made.wait is not None and not self._running):
                return "done" if made.done else "waiting"
            if self._stopping:
                return await self._release()
            await self._until_news(made.timers)
            await self._commit(self._decide)

    def _apply(self, made: Plan) -> None:
        for key, running in self._running.items():
            if key not in made.wanted and not running.cancel.is_set():
                running.cancel.set()
                running.task.cancel()
        for start in made.start:
            cancel = asyncio.Event()
            self.metrics.steps.add(1, kind=self.subject.family)
            task = asyncio.create_task(self._act(start, self._made_at, cancel), name=f"action {start.action.key}")
            self._running[start.action.key] = _Running(start, task, cancel)

    async def _until_news(self, timers: Sequence[tuple[str, str]]) -> None:
        """Return when there is an outcome, somebody's commit, a nudge or a due timer."""
        if timers and not self._wake.is_set():
            first = min(parse_rfc3339(moment) for _, moment in timers)
            seconds = max(0.0, (first - self.clock.now()).total_seconds())
            alarm = asyncio.create_task(self._alarm(seconds))
            try:
                await self._wake.wait()
            finally:
                alarm.cancel()
        else:
            await self._wake.wait()
        self._wake.clear()
        self._facts.extend(TimerFired(name) for name in self._due(timers))

    async def _alarm(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        self._wake.set()

    async def _commit(self, decide: Callable[[View[Any]], Entry]) -> None:
        """Append what is known now; wait out a store that is away, keeping every outcome.

        Raises: Transient when it is away and there is no more time.
        """
        pause = self.limits.retry_s
        while True:
            try:
                await self.subject.commit(decide)
                break
            except LetGo:
                self._made = self._landed
                break
            except Transient as error:
                if self._stopping and self.clock.monotonic() >= self._stop_by:
                    raise
                if pause == self.limits.retry_s:
                    log.warning("store_away", code=error.code, subject=self.subject.id)
                await self.clock.sleep(pause)
                pause = min(pause * 2, self.limits.retry_max_s)

    def _tell_host(self) -> None:
        """A host that the log speaks of has to exist."""
        run = self.subject.control.current
        until = waiting.until if (waiting := self.subject.control.waiting) else ""
        if run is not None and run.generation and self._told != (told := (run.n, run.generation, until)):
            self._told = told
            self.host_due = False
            self.on_hosted(run.n, run.generation)

    def _decide(self, view: View[Any]) -> Entry:
        self._owned(view)
        return self._landing(self._planned(view, self._facts))

    def _owned(self, view: View[Any]) -> None:
        """A driver that meets a higher epoch stops. Raises: Superseded, LetGo."""
        control = view.control
        if control.epoch != self.epoch:
            raise Superseded
        if control.driver != self.driver:
            raise LetGo

    def _landing(self, entry: Entry) -> Entry:
        """The same entry, forgetting its facts once they are durable."""
        taken, made = len(self._facts), self._made

        def landed() -> None:
            del self._facts[:taken]
            self._landed = made

        return replace(entry, landed=landed)

    async def _act(self, start: Start, planned_at: float, cancel: asyncio.Event) -> None:
        """Do one action and leave what happened as facts; never raises."""
        key = start.action.key
        facts: Sequence[Event] = ()
        try:
            facts = await self._outcome(start, planned_at, cancel)
        except Transient as error:
            facts = await self._later(start, error)
        except asyncio.CancelledError as error:
            # Not asked for by this driver: something that the action awaited was cancelled.
            own = (task := asyncio.current_task()) is not None and task.cancelling() > 0
            facts = self._doubt(start, "cancelled") if own else [failed(self.subject.id, start.action, error)]
        except Exception as error:  # noqa: BLE001 - whatever a handler raises closes its run visibly, never the driver
            facts = [failed(self.subject.id, start.action, error)]
        finally:
            self._running.pop(key, None)
            self._facts.extend(facts)
            self._wake.set()

    async def _outcome(self, start: Start, planned_at: float, cancel: asyncio.Event) -> Sequence[Event]:
        action = start.action
        if start.after_other or (start.attempt > 1 and action.effect is Effect.ONCE):
            # Let the start-by time of an older owner's reservation pass: after it, that owner cannot start.
            await self.clock.sleep(self.began + self.limits.start_by_s - self.clock.monotonic())
        info = self.subject.control.run(action.run)
        doing = Doing(
            key=f"{self.subject.id}.{action.key}",
            run_id=f"{self.subject.id}-{action.run}",
            attempt=start.attempt + self._put_off[action.key],
            fence=self.epoch,
            cancel=cancel,
            trace=info.trace if info else "",
            by=info.by if info else "",
        )
        if start.mode is Mode.RECONCILE:
            return await self._reconcile(start, doing)
        if self.clock.monotonic() - planned_at > self.limits.start_by_s and not await self._still_mine(start):
            return ()  # not started, so the planner asks for it anew, with a fresh start-by time
        self._started.add(action.key)
        facts = await self.subject.kind.do(action, doing)
        if self.limits.pace_s:
            await self.clock.sleep(self.limits.pace_s)
        return facts

    async def _still_mine(self, start: Start) -> bool:
        """After so long a time somebody else may own the subject; only what may run twice goes on if not."""
        control = (await self.subject.refresh()).control
        if start.action.effect is Effect.ONCE:
            await self.clock.sleep(self.limits.retry_s)  # the store is slower than the start-by time: do not spin
            return False
        return (control.epoch, control.driver) == (self.epoch, self.driver)

    async def _reconcile(self, start: Start, doing: Doing) -> Sequence[Event]:
        said = await self.subject.kind.reconcile(start.action, doing)
        if said is False and start.after_other:
            # "Not happened" is only true for good once nobody can be at it any more.
            entry = self.subject.control.effects.get(start.action.key)
            possible_s = possible_for(entry, start.action, self.slot, self.life, self.limits.start_by_s)
            if possible_s is None:
                return [Unreconciled(start.action.key)]
            if possible_s:
                await self.clock.sleep(self.began + possible_s - self.clock.monotonic())
                said = await self.subject.kind.reconcile(start.action, doing)
        if isinstance(said, Settled):
            return [said]
        if said is False:
            self._started.discard(start.action.key)
            return [NotHappened(start.action.key)]
        return [Unreconciled(start.action.key)]

    def _doubt(self, start: Start, why: str) -> Sequence[Event]:
        key = start.action.key
        if start.mode is Mode.DO and start.action.effect is Effect.ONCE and key in self._started:
            return [Doubted(key, why)]
        return ()

    async def _later(self, start: Start, error: Transient) -> Sequence[Event]:
        """A `once` effect that met a passing fault is in doubt; any other is asked for again after a pause."""
        if not self._put_off[start.action.key]:  # said once, however often it is asked for again
            log.warning("action_put_off", subject=self.subject.id, action=start.action.name, code=error.code)
        doubt = self._doubt(start, f"{error.code}: {error}")
        if not doubt:
            self._put_off[start.action.key] += 1
            pause = self.limits.retry_s * 2 ** min(self._put_off[start.action.key], 16)
            await self.clock.sleep(max(min(pause, self.limits.retry_max_s), asked_to_wait(error)))
        return doubt

    async def _finish(self) -> None:
        """Give actions in progress their time, then cut them."""
        tasks = [one.task for one in self._running.values()]
        if tasks:
            ended = asyncio.create_task(asyncio.wait(tasks))
            limit = asyncio.create_task(self.clock.sleep(self.limits.shutdown_s))
            await asyncio.wait((ended, limit), return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            limit.cancel()
        await _cut(tuple(self._running.values()))

    async def _release(self) -> str:
        """Record what came of the actions and give the subject up; under a host, another replica goes on at once."""
        await self._finish()

        def decide(view: View[Any]) -> Entry:
            self._owned(view)
            run = view.control.current
            hosted = [Hosted(run.n, 1)] if run is not None and not run.generation else []
            return self._landing(Entry([*self._facts, Released("shutdown"), *hosted], self.epoch, self.driver))

        await self._commit(decide)
        self._tell_host()
        return "released"

    async def _confess(self) -> None:
        """Superseded: the outcome of an effect that this driver reserved still settles the doubt."""
        await _cut([one for one in self._running.values() if one.start.action.effect is Effect.READ])
        await self._finish()

        def decide(view: View[Any]) -> Entry:
            doubts = view.control.effects
            return Entry([fact for fact in self._facts if isinstance(fact, Settled) and fact.key in doubts])

        await self._commit(decide)


async def _cut(running: Iterable[_Running]) -> None:
    for task in (tasks := [one.task for one in running]):
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
