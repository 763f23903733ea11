"""A service in this process without Dapr: for scripts, notebooks and tests."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.errors import Conflict, Failed, NotFound
from perdure.log.subject import parse_run_id
from perdure.observability.tracing import current_trace_parent
from perdure.run.control import Approval
from perdure.run.event import Event
from perdure.serving.service import Service
from perdure.serving.turns import Question, ended
from perdure.serving.wiring import Plan, build, memory_reach
from perdure.sidecar.files import FolderStateStore
from perdure.sidecar.memory import MemorySidecar
from perdure.types import Json, JsonObject, RunId

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

CALLER = "local"
"""Recorded as `by`."""

LONG_S = 3600.0
"""How long one look at a turn lasts before the next; any number would do."""


class LocalTurn:
    """A turn of a local runtime. Properties tell of the last look at it; `refresh` and all that waits looks anew."""

    def __init__(self, service: Service, run: RunId, joined: bool) -> None:
        self._service = service
        self._shown: JsonObject = {"id": run, "status": "accepted"}
        self._asked: tuple[Approval, ...] = ()
        self.id = run
        self.joined = joined

    def __repr__(self) -> str:
        return f"<turn {self.id} {self.status}>"

    @property
    def status(self) -> str:
        """accepted, running, waiting, paused, done, failed or cancelled."""
        return str(self._shown["status"])

    def show(self) -> JsonObject:
        """The turn as HTTP shows it."""
        return self._shown

    def approvals(self) -> tuple[Approval, ...]:
        """What waits for a person: call, tool's name, arguments, digest."""
        return self._asked

    async def answer(self) -> Json:
        """The answer: text, or the value of a structured answer. None when the turn waits for a person or is paused.

        Raises: Failed (the turn's own code, or `turn_cancelled`).
        """
        turns = self._service.turns
        while True:
            await self.refresh()
            if ended(self._shown) or self._asked or self.status == "paused":
                break
            await turns.wait(self.id, LONG_S, self._service.draining)
            self._service_lives()
        if not ended(self._shown):
            return None
        self._raise_failure()
        return self._shown.get("output", self._shown.get("answer"))

    async def refresh(self) -> JsonObject:
        """Look at the turn."""
        subject, n = parse_run_id(self.id)
        self._shown = await self._service.turns.show(self.id)
        control = (await self._service.runner.view(subject)).control
        self._asked = tuple(a for a in control.approvals.values() if a.run == n and a.status == "asked")
        return self._shown

    async def approve(self, call: str | Approval, by: str = CALLER) -> None:
        """Allow the call as it was shown by `approvals`."""
        asked = self._approval(call)
        await self._service.runner.approve(self.id, asked.call, asked.digest, by)

    async def deny(self, call: str | Approval, reason: str = "", by: str = CALLER) -> None:
        """Refuse the call; the model is told."""
        await self._service.runner.deny(self.id, self._approval(call).call, by, reason)

    async def pause(self) -> None:
        """No new action starts until `resume`."""
        await self._service.runner.pause(self.id, CALLER)

    async def resume(self) -> None:
        """End a pause."""
        await self._service.runner.resume(self.id, CALLER)

    async def cancel(self, reason: str = "") -> None:
        """End the turn as cancelled once its actions have stopped."""
        await self._service.runner.cancel(self.id, reason, CALLER)

    async def steer(self, text: str) -> None:
        """Say something that reaches the model before its next call."""
        await self._service.runner.steer(self.id, text, CALLER)

    async def signal(self, name: str, payload: JsonObject | None = None, id: str = "") -> None:
        """Hand the turn a named message."""
        await self._service.runner.signal(self.id, name, payload or {}, id, CALLER)

    def events(self, after: tuple[int, int] = (0, 0)) -> AsyncIterator[tuple[int, int, Event]]:
        """What happened and happens in the turn, to its end, as (n, i, event)."""
        return self._service.runner.events(self.id, after)

    def _approval(self, call: str | Approval) -> Approval:
        if isinstance(call, Approval):
            return call
        found = next((asked for asked in self._asked if asked.call == call), None)
        if found is None:
            known = ", ".join(asked.call for asked in self._asked) or "none"
            raise NotFound("approval_unknown", f"no approval is asked for call {call!r}; asked for: {known}")
        return found

    def _raise_failure(self) -> None:
        if self.status == "done":
            return
        error: Any = self._shown.get("error")
        if isinstance(error, dict):
            raise Failed(str(error.get("code")), str(error.get("message")), turn=self.id)
        raise Failed(f"turn_{self.status}", f"turn {self.id} was {self.status}", turn=self.id)

    def _service_lives(self) -> None:
        if self._service.draining.is_set():
            raise Conflict("runtime_closed", f"the runtime was closed while turn {self.id} was going on; open it again")


class LocalRuntime:
    """A running service in this process."""

    def __init__(self, service: Service, plan: Plan, routers: Sequence[APIRouter]) -> None:
        self.service = service
        self._plan = plan
        self._routers = routers
        self._http: FastAPI | None = None

    async def ask(
        self, agent: str, text: str, *, session: str | None = None, key: str | None = None, by: str = CALLER
    ) -> LocalTurn:
        """Begin a turn, or join the one that has this key; durable when this returns.

        Raises: NotFound (`agent_unknown`), Conflict (`key_reused`, `turn_running`), Invalid, Busy.
        """
        question = Question(
            text=text, agent=agent, session=session or "", key=key or "", by=by, trace=current_trace_parent()
        )
        accepted = await self.service.turns.ask(question)
        return LocalTurn(self.service, accepted.run_id, accepted.joined)

    async def turn(self, id: str) -> LocalTurn:
        """A turn asked earlier. Raises: NotFound (`run_unknown`), Invalid (`run_id_malformed`)."""
        found = LocalTurn(self.service, RunId(id), joined=True)
        await found.refresh()
        return found

    async def session(self, agent: str, session: str) -> JsonObject:
        """All turns and messages of a session. Raises: NotFound."""
        return await self.service.turns.session(agent, session)

    async def erase(self, agent: str, session: str) -> None:
        """Erase a session for ever. Raises: NotFound, Conflict (`run_open`)."""
        await self.service.turns.erase(agent, session)

    @property
    def http(self) -> FastAPI:
        """The service's HTTP side, over the same state; for test clients."""
        if self._http is None:
            from perdure.serving.http import http_application

            self._http = http_application(self._plan.app_id, self._plan.settings, self._plan.ids, self._routers)
            self._http.state.service, self._http.state.up = self.service, True
        return self._http


@asynccontextmanager
async def local_runtime(plan: Plan, routers: Sequence[APIRouter], folder: Path | None) -> AsyncIterator[LocalRuntime]:
    """A service on memory, or on a folder: then state and hosts survive the process."""
    async with AsyncExitStack() as stack:
        sidecar = await _sidecar(plan, folder, stack)
        service = await stack.enter_async_context(build(plan, memory_reach(sidecar), lambda _: None))
        runtime = LocalRuntime(service, plan, routers)

        async def reached(scope: Any, receive: Any, send: Any) -> None:
            await runtime.http(scope, receive, send)

        sidecar.invoker.register(plan.app_id, reached)
        yield runtime


async def _sidecar(plan: Plan, folder: Path | None, stack: AsyncExitStack) -> MemorySidecar:
    names = plan.settings.stores
    stores = (names.conversation, names.workflow, names.agent, names.registry)
    if folder is None:
        return MemorySidecar(plan.app_id, stores=stores, buses=(names.pubsub,), clock=plan.clock)
    stack.enter_context(_alone(folder))
    kept = {name: FolderStateStore(folder / name, name, ids=plan.ids) for name in (*stores, "hosts")}
    for store in kept.values():
        stack.push_async_callback(store.close)
    hosts = kept.pop("hosts")
    return MemorySidecar(plan.app_id, stores=kept, buses=(names.pubsub,), clock=plan.clock, engine_store=hosts)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: two lives of one replica would take each other's runs."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "folder_in_use", f"{folder} is open in another process; close it, or use another folder"
            ) from None
        yield
