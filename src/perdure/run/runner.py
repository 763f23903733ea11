"""The runner: what a service asks for. Accepts runs, drives them, tells what became of them, takes orders for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from perdure.clock import Clock, Ids
from perdure.errors import Busy, Conflict, NotFound, PerdureError, Transient
from perdure.log.log import Log, LogLimits
from perdure.log.subject import parse_run_id, run_id, subject_id
from perdure.observability.logs import get_logger
from perdure.observability.metrics import Metrics
from perdure.run import orders
from perdure.run.adoption import Adoption
from perdure.run.control import Control, Position, RunInfo
from perdure.run.crew import Crew, full, watching
from perdure.run.event import Accepted, CancelAsked, Event, PauseAsked, ResumeAsked, Signalled, Steered
from perdure.run.host import host_body
from perdure.run.kind import Kind
from perdure.run.limits import RunLimits
from perdure.run.plan import View, fold_view
from perdure.run.rescue import Rescue
from perdure.run.rounds import Rounds
from perdure.run.subject import Entry, Subject, Subjects
from perdure.sidecar.ports import Engine, Jobs, StateStore
from perdure.types import JsonObject, RunId, Slot, SubjectId

log = get_logger(__name__)

__all__ = ["Accept", "Place", "RunLimits", "Runner"]

AcceptDecide = Callable[[View[Any]], Sequence[Event] | int]


@dataclass(frozen=True, slots=True)
class Accept:
    """A durable run; `joined` when the same key had begun it before."""

    run_id: RunId
    joined: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom this replica works. `stores`: family of a kind (`turn`) → the store of its logs."""

    app_id: str
    slot: Slot
    stores: Mapping[str, StateStore]
    engine: Engine
    jobs: Jobs
    namespace: str = ""
    partition: str = ""
    prefix: str = ""


class Runner:
    """One replica's runs. While open it drives what it accepted or adopted; closing releases it in good order."""

    def __init__(
        self,
        place: Place,
        kinds: Mapping[str, Kind[Any]],
        *,
        clock: Clock,
        ids: Ids,
        metrics: Metrics,
        limits: RunLimits | None = None,
        log_limits: LogLimits | None = None,
    ) -> None:
        self.limits = limits or RunLimits()
        self._place = place
        self._kinds = dict(kinds)
        self._clock = clock
        self._ids = ids
        self._log_limits = log_limits or LogLimits()
        versions = sorted({f"{key.split('/')[0]}:{kind.version}" for key, kind in self._kinds.items()})
        self._version = f"control:1 {' '.join(versions)}"
        self._subjects = Subjects(self.limits.cache_subjects)
        self._crew = Crew(place.app_id, place.slot, place.stores, place.engine, self._subjects,
                          clock=clock, ids=ids, metrics=metrics, limits=self.limits, prefix=place.prefix)  # fmt: skip
        self._rescue = Rescue(self._crew, self.open_subject, clock)
        self._adoption = Adoption(self._crew, self._rescue, place.jobs, clock=clock)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Adopt what this slot's former life left, then be ready. Raises: SidecarUnavailable."""
        async with AsyncExitStack() as stack:
            # Entered first, so that it beats to the end of everything that is released.
            await stack.enter_async_context(Rounds(self._crew, self._rescue, self._clock))
            await stack.enter_async_context(self._crew)
            await self._rescue.adopt_own()
            self._adoption.declare()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def hosting(self) -> AsyncIterator[None]:
        """While open, this replica also executes hosts and sweeps for what dead replicas left."""
        async with self._place.engine.serve(host_body(self.limits.host_rounds), self._rescue.drive_hosted):
            scheduling = asyncio.create_task(self._adoption.schedule(), name="schedule sweep")
            try:
                yield
            finally:
                scheduling.cancel()
                await asyncio.wait((scheduling,))

    # --- asking ---------------------------------------------------------------------------------

    def kind(self, key: str) -> Kind[Any]:
        """The registered kind. Raises: NotFound (`kind_unknown`)."""
        found = self._kinds.get(key)
        if found is None:
            raise NotFound("kind_unknown", f"{key!r} is unknown; registered: {', '.join(sorted(self._kinds))}")
        return found

    def subject(self, kind: str, key: str) -> SubjectId:
        """The subject of `kind` (registered key) and a session or run key."""
        return subject_id(self._place.namespace, self._place.partition, kind, key)

    async def accept(self, kind: str, subject: SubjectId, decide: AcceptDecide) -> Accept:
        """Begin a run, or join one; durable, and sure to be driven or adopted, when this returns.

        `decide` is pure and asked again after a conflict: events to append (with one `Accepted`), or the number of
        the run to join; what it raises passes through. Raises: Busy, Transient (repeat with the same key).
        """
        self.kind(kind)
        number = 0
        joined = False
        crowded = full(self._crew)

        def said(view: View[Any]) -> Sequence[Event]:
            nonlocal number, joined
            answer = decide(view)
            joined = isinstance(answer, int)
            if isinstance(answer, int):
                number = answer
                return ()
            begins = any(isinstance(event, Accepted) for event in answer)
            if begins and crowded:
                raise Busy("too_many_runs", f"this replica drives {self.limits.max_active_runs} runs; repeat later",
                           retry_after_s=1)  # fmt: skip
            number = view.n + 1 if begins else next(event.run for event in answer)
            return answer

        async with self._opened(subject, kind) as opened:
            try:
                await self._crew.begin(opened, said)
            except PerdureError as error:
                if not await self._outdated(opened, error):
                    raise
                await self._crew.begin(opened, said)
            if joined:
                await self._crew.tend(opened)  # its driver may have died before the run was listed anywhere
        return Accept(run_id(subject, number), joined)

    async def _outdated(self, subject: Subject, error: PerdureError) -> bool:
        """Whether a refusal was decided from a state that other replicas have moved on from."""
        if (isinstance(error, Transient) and not isinstance(error, Busy)) or self._crew.held(subject.id):
            return False
        known = subject.log.n
        return (await subject.refresh()).n > known

    async def view(self, subject: SubjectId) -> View[Any]:
        """The newest state. Raises: NotFound (`run_unknown`)."""
        async with self._opened(subject) as opened:
            return await opened.refresh()

    async def describe(self, run: RunId) -> JsonObject:
        """The run as its kind describes it. Raises: NotFound (`run_unknown`), Invalid (`run_id_malformed`)."""
        async with self._run(run) as (opened, n):
            return await self._described(opened, n)

    async def wait(self, run: RunId, timeout_s: float, *, stop_on_wait: bool = True) -> JsonObject:
        """`describe` as soon as the run ended, or waits for somebody (if `stop_on_wait`), or time is up."""
        async with self._run(run) as (opened, n):
            try:
                with watching(self._crew, opened):
                    async with asyncio.timeout(timeout_s):
                        await opened.until(lambda: _rests(opened.control, n, stop_on_wait))
            except TimeoutError:
                pass  # the caller asked for no more than this; the state as it is now is the answer
            return await self._described(opened, n)

    async def events(self, run: RunId, after: tuple[int, int] = (0, 0)) -> AsyncIterator[tuple[int, int, Event]]:
        """The run's events (commit, index, event) after a position: the old ones, then as they come, to its end."""
        async with self._run(run) as (opened, n):
            with watching(self._crew, opened):
                following = max(n, after[0])
                while True:
                    change = opened.change()
                    ended = opened.control.open.get(n) is None
                    async for commit in opened.log.history(following):
                        following = commit.n + 1
                        for i, event in enumerate(opened.kind.codec.decode(commit.events)):
                            if (commit.n, i) > after and orders.concerns(event, n, commit.n):
                                yield commit.n, i, event
                    if ended:
                        return
                    await opened.changed(change)

    async def runs(self) -> list[JsonObject]:
        """The open runs of this app that last or are driven here."""
        listed = dict(await self._crew.index.all())
        for subject, drive in self._crew.drives.items():
            run = drive.subject.control.current
            if run is not None:
                entry: JsonObject = {"subject": subject, "family": drive.subject.family, "run": run.n, "at": run.at}
                listed.setdefault(run_id(subject, run.n), entry)
        return [{"id": RunId(run), **entry} for run, entry in listed.items()]

    # --- orders ---------------------------------------------------------------------------------

    async def pause(self, run: RunId, by: str = "") -> None:
        """No new action starts until `resume`. Raises: Conflict (`run_closed`)."""
        await self._order(run, lambda c, r: [] if r.paused else [PauseAsked(r.n, by)])

    async def resume(self, run: RunId, by: str = "") -> None:
        """End a pause. Raises: Conflict (`run_closed`)."""
        await self._order(run, lambda c, r: [ResumeAsked(r.n, by)] if r.paused else [])

    async def cancel(self, run: RunId, reason: str, by: str = "") -> None:
        """End the run as cancelled once its actions have stopped; asking again changes nothing."""
        await self._order(run, lambda c, r: [] if r.cancel is not None else [CancelAsked(r.n, reason, by)])

    async def signal(self, run: RunId, name: str, payload: JsonObject, id: str = "", by: str = "") -> None:
        """Hand the run a named message. Raises: Conflict (`run_closed`)."""
        await self._order(run, lambda c, r: [Signalled(r.n, name, payload, id, by)])

    async def steer(self, run: RunId, text: str, by: str = "") -> None:
        """A user's word for the running turn. Raises: Conflict (`run_closed`)."""
        await self._order(run, lambda c, r: [Steered(r.n, text, by)])

    async def approve(self, run: RunId, call: str, digest: str, by: str) -> None:
        """Allow exactly the call shown. Raises: NotFound, Conflict (`approval_digest`, `approval_answered`)."""
        await self._order(run, lambda c, r: orders.approve(c, call, digest, by))

    async def deny(self, run: RunId, call: str, by: str, reason: str = "") -> None:
        """Refuse the call. Raises: NotFound, Conflict (`approval_answered`)."""
        await self._order(run, lambda c, r: orders.deny(c, call, by, reason))

    async def erase(self, subject: SubjectId) -> None:
        """Erase the subject's whole log. Raises: Conflict (`run_open`) while a run of it is open."""
        async with self._opened(subject) as opened:
            await opened.erase()
        self._subjects.drop(subject)

    async def _order(self, run: RunId, make: Callable[[Control, RunInfo], Sequence[Event]]) -> None:
        async with self._run(run) as (opened, n):

            def decide(view: View[Any]) -> Entry:
                info = view.control.open.get(n)
                if info is None:
                    raise Conflict("run_closed", f"run {run} has ended; nothing can be changed about it", run=run)
                return Entry(make(view.control, info))

            await self._crew.tell(opened, decide)

    # --- subjects -------------------------------------------------------------------------------

    def open_subject(self, subject: SubjectId, family: str) -> Subject:
        """The subject object of this process; not loaded yet when it is new."""
        kept = self._subjects.get(subject)
        return kept if kept is not None else self._subjects.keep(self._made(subject, family))

    def _made(self, subject: SubjectId, family: str) -> Subject:
        store = self._place.stores[family]
        made = Log(store, subject, clock=self._clock, ids=self._ids, limits=self._log_limits, prefix=self._place.prefix)
        return Subject(subject, family, made, self._kinds, self._version)

    @asynccontextmanager
    async def _opened(self, subject: SubjectId, kind: str = "") -> AsyncIterator[Subject]:
        """The subject, loaded, and kept in memory meanwhile. Raises: NotFound (`run_unknown`) without `kind`."""
        opened = self.open_subject(subject, kind.split("/")[0]) if kind else await self._found(subject)
        with self._subjects.pinned(opened):
            if not await opened.open(kind) and not kind:
                raise _unknown(subject)
            yield opened

    async def _found(self, subject: SubjectId) -> Subject:
        """Which store it is in nobody says: each is asked, and only what is there is kept in memory."""
        kept = self._subjects.get(subject)
        if kept is not None:
            return kept
        for family in self._families():
            made = self._made(subject, family)
            if await made.open():
                return self._subjects.keep(made)
        raise _unknown(subject)

    def _families(self) -> list[str]:
        """One family a store, of those that this service runs."""
        by_store = {self._place.stores[key.split("/")[0]].name: key.split("/")[0] for key in self._kinds}
        return list(by_store.values())

    @asynccontextmanager
    async def _run(self, run: RunId) -> AsyncIterator[tuple[Subject, int]]:
        """The run's subject as it is now, whoever drives it, and the run's number."""
        subject, n = parse_run_id(run)
        async with self._opened(subject) as opened:
            if opened.control.closed.get(n) is None and not self._crew.held(opened.id):
                await opened.refresh()
            yield opened, n

    async def _described(self, subject: Subject, n: int) -> JsonObject:
        view = subject.view
        if view is None or n > view.n:
            raise _unknown(run_id(subject.id, n))
        if view.control.run(n) is None:
            view = await self._former(subject, n)
        try:
            shown = subject.kind.describe(view.state, view.control, n)
        except NotFound:  # a kind's state is bounded, the log is not
            former = await self._former(subject, n)
            shown = subject.kind.describe(former.state, former.control, n)
        return {"id": run_id(subject.id, n), **shown}

    async def _former(self, subject: Subject, n: int) -> View[Any]:
        """The view at the end of a run that ended long ago, folded from its own commits."""
        kind = subject.kind
        view: View[Any] = View(n - 1, kind.initial(), Control())
        async for commit in subject.log.history(n):
            for i, event in enumerate(kind.codec.decode(commit.events)):
                if not orders.foreign(event, n, commit.n):
                    at = Position(commit.n, i, commit.at, commit.epoch, commit.driver)
                    view = fold_view(kind, view, (event,), at)
            if n in view.control.closed:
                return view
            if n not in view.control.open:
                break
        raise _unknown(run_id(subject.id, n))


def _rests(control: Control, n: int, stop_on_wait: bool) -> bool:
    info = control.open.get(n)
    if info is None:
        return True
    waits = control.waiting is not None and bool(control.waiting.on) and control.current is info
    return stop_on_wait and waits


def _unknown(what: str) -> NotFound:
    return NotFound("run_unknown", f"nothing is known under {what}; check the id and the app", id=what)
