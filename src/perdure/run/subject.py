"""A subject in memory: its log, the fold of it, and the one place where it is appended to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from perdure.errors import Broken, Conflict, NotFound, Transient
from perdure.log.commit import Commit, Stamp
from perdure.log.log import Log, Snapshot
from perdure.run.control import Control, Position
from perdure.run.event import Event
from perdure.run.kind import Kind
from perdure.run.plan import View, fold_view
from perdure.types import SubjectId

_CONTROL: TypeAdapter[Control] = TypeAdapter(Control)
_SNAPSHOT: TypeAdapter[tuple[str, str, str]] = TypeAdapter(tuple[str, str, str])


class Superseded(Exception):
    """Somebody else owns the subject."""


class LetGo(Exception):
    """This driver has given the subject up: a save that nobody answered was written, as it turns out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a decision wants appended, and as whom. A guest appends at the known epoch without a driver's name.

    `at` is the moment the decision was made at, which actions know already; empty: when it is appended.
    `view` is the fold after `events`, if it is known: only with `at`, because the fold depends on the moment.
    `landed` is called once the events are known to be durable, also when that is found out only later.
    """

    events: Sequence[Event]
    epoch: int | None = None
    driver: str = ""
    landed: Callable[[], None] | None = None
    at: str = ""
    view: View[Any] | None = None


Decide = Callable[[View[Any]], Entry]


class Subject:
    """One log and its fold. All appends of this process go through `commit`, one at a time."""

    def __init__(self, subject: SubjectId, family: str, log: Log, kinds: Mapping[str, Kind[Any]], version: str) -> None:
        self.id = subject
        self.family = family
        self.log = log
        self.view: View[Any] | None = None
        self.kind_key = ""
        self.pins = 0
        self._kinds = kinds
        self._version = version
        self._lock = asyncio.Lock()
        self._changed: asyncio.Future[None] | None = None
        self._loaded = False
        self._unsure: Entry | None = None
        self.listeners: set[Callable[[Stamp], None]] = set()

    @property
    def kind(self) -> Kind[Any]:
        """The kind that folds this subject. Raises: Broken (`kind_unknown`) when this service has none such."""
        found = self._kinds.get(self.kind_key)
        if found is None:
            raise Broken(
                "kind_unknown",
                f"subject {self.id} belongs to {self.kind_key!r}, which this service does not run; "
                f"registered: {', '.join(sorted(self._kinds))}",
            )
        return found

    @property
    def control(self) -> Control:
        """The shared part of the state; empty before the first commit."""
        return self.view.control if self.view is not None else Control()

    @property
    def unsure(self) -> bool:
        """Whether an append was interrupted and what became of it has not been read yet."""
        return self.log.unsettled or self._unsure is not None

    async def open(self, kind_key: str = "") -> bool:
        """Load what is stored, once. False when nothing is; then `kind_key` says what may be begun."""
        async with self._lock:
            await self._reload()
            if self.view is None and kind_key:
                self.kind_key = kind_key
                self.view = View(0, self.kind.initial(), Control())
        return self.log.n > 0

    def distrust(self) -> None:
        """The fold may not be what the log says: whoever uses it next loads it anew. Waiters stay."""
        self._loaded = False

    async def _reload(self) -> None:
        """Load, unless the fold can be trusted. When that fails the old view is still there to be shown."""
        if self._loaded:
            return
        loaded = await self.log.load(snapshot_version=self._version)
        before, self.view = self.view, None
        try:
            if loaded.snapshot is not None:
                self._restore(loaded.snapshot)
            for commit in loaded.commits:
                self._fold_stored(commit)
        except BaseException:
            self.view = before
            raise
        if self.log.n == 0:
            self.view = before
        self._loaded, self._unsure = True, None

    def _restore(self, snapshot: Snapshot) -> None:
        self.kind_key, control, state = _SNAPSHOT.validate_json(snapshot.data)
        self.view = View(snapshot.n, self.kind.load(state.encode()), _CONTROL.validate_json(control))

    def _fold_stored(self, commit: Commit) -> None:
        if self.view is None:
            first = commit.events[0] if commit.events else {}
            self.kind_key = str(first.get("kind", ""))
            self.view = View(0, self.kind.initial(), Control())
        self._fold(commit, self.kind.codec.decode(commit.events))

    def _fold(self, commit: Stamp, events: Sequence[Event]) -> None:
        view = self.view
        if view is None:
            raise Broken("subject_unopened", f"subject {self.id} was appended to before it was opened")
        at = Position(commit.n, 0, commit.at, commit.epoch, commit.driver)
        self._show(fold_view(self.kind, view, events, at), commit)

    def _show(self, view: View[Any], commit: Stamp) -> None:
        """The state after `commit` is `view`: whoever waits for news has it."""
        self.view = view
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
        for listener in tuple(self.listeners):
            listener(commit)

    async def refresh(self) -> View[Any]:
        """Read what others appended. Raises: NotFound (`run_unknown`) when there is no such subject."""
        async with self._lock:
            await self._read_on()
        if self.view is None:
            raise NotFound("run_unknown", f"nothing is known under {self.id}; check the id")
        return self.view

    async def _read_on(self) -> None:
        await self._reload()
        commits = await self.log.read_on()
        unsure, self._unsure = self._unsure, None
        with self._whole():
            for commit in commits:
                self._fold_stored(commit)
        if unsure is None or unsure.landed is None or not commits:
            return
        if unsure.driver and (unsure.driver, unsure.epoch) == (commits[0].driver, commits[0].epoch):
            unsure.landed()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """The log has moved on; a fold that could not follow it is not to be decided from."""
        try:
            yield
        except BaseException:
            self.distrust()
            raise

    async def commit(self, decide: Decide) -> Stamp | None:
        """Append what `decide` (pure, asked again after every conflict) says of the newest state.

        Returns its stamp, or None when there was nothing to append. Whatever `decide` raises passes through
        and nothing is appended. Raises: Transient when the outcome is unknown; call again, the log settles it.
        """
        async with self._lock:
            await self._reload()
            while True:
                view = self.view
                if view is None:
                    raise Broken("subject_unopened", f"subject {self.id} was appended to before it was opened")
                entry = decide(view)
                if not entry.events:
                    return None
                epoch = view.control.epoch if entry.epoch is None else entry.epoch
                try:
                    commit = await self.log.append(entry.events, epoch=epoch, driver=entry.driver, at=entry.at)
                except Conflict:
                    await self._read_on()
                    continue
                except (Transient, asyncio.CancelledError):
                    # The first interrupted entry is the one on its way, however often others are tried after it.
                    if self._unsure is None and self.log.unsettled:
                        self._unsure = entry
                    raise
                if entry.landed is not None:
                    entry.landed()
                with self._whole():
                    if entry.view is not None:
                        self._show(entry.view, commit)  # decided on the newest state, so this is the next
                    else:
                        self._fold(commit, entry.events)
                return commit

    def change(self) -> asyncio.Future[None]:
        """Done at the next fold of anything after this call; shared, so wait for it through `changed`."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        return self._changed

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once `holds()`, asked at every fold: no commit that changes nothing of it wakes anybody."""
        while not holds():
            held = asyncio.get_running_loop().create_future()

            def look(_: Stamp, held: asyncio.Future[None] = held) -> None:
                if not held.done() and holds():
                    held.set_result(None)

            self.listeners.add(look)
            try:
                await held
            finally:
                self.listeners.discard(look)

    async def changed(self, change: asyncio.Future[None]) -> None:
        """Return once `change` is done."""
        await asyncio.shield(change)

    async def erase(self) -> None:
        """Erase the whole log. Raises: Conflict (`run_open`) while a run is open."""
        async with self._lock:
            await self._read_on()
            if self.control.open:
                raise Conflict("run_open", f"subject {self.id} has an open run; cancel it first", subject=self.id)
            await self.log.erase()

    async def close_segment(self) -> None:
        """Write the segment that is due, with a snapshot of the fold."""
        async with self._lock:
            if self.log.segment_due and self.view is not None:
                await self.log.close_segment(self._snapshot(self.view))

    def _snapshot(self, view: View[Any]) -> Snapshot:
        control = _CONTROL.dump_json(view.control).decode()
        state = self.kind.dump(view.state).decode()
        return Snapshot(view.n, self._version, _SNAPSHOT.dump_json((self.kind_key, control, state)))


class Subjects:
    """The subjects in memory: pinned while used, else least recently used first out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[SubjectId, Subject] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, subject: SubjectId) -> Subject | None:
        """The subject, if it is in memory."""
        return self._kept.get(subject)

    def keep(self, subject: Subject) -> Subject:
        """Remember `subject`, unless another task was first: then that one."""
        kept = self._kept.setdefault(subject.id, subject)
        self._touch(kept)
        return kept

    def drop(self, subject: SubjectId) -> None:
        """Forget it."""
        self._kept.pop(subject, None)

    @contextmanager
    def pinned(self, subject: Subject) -> Iterator[Subject]:
        """Keep it in memory meanwhile."""
        subject.pins += 1
        try:
            yield subject
        finally:
            subject.pins -= 1
            self._touch(subject)

    def _touch(self, subject: Subject) -> None:
        if self._kept.pop(subject.id, None) is not None:
            self._kept[subject.id] = subject
        excess = len(self._kept) - self._limit
        if excess > 0:
            idle = [s.id for s in self._kept.values() if s.pins == 0 and s.id != subject.id]
            for old in idle[:excess]:
                del self._kept[old]
