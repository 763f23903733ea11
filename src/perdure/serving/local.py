"""A service in this process without Dapr: for scripts, notebooks and tests."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.errors import Conflict
from perdure.observability.tracing import current_trace_parent
from perdure.pipeline.accept import checked_key
from perdure.pipeline.work import begin
from perdure.serving.handle import CALLER, LocalPipelineRun, LocalTurn
from perdure.serving.service import Service, Standing
from perdure.serving.turns import Question
from perdure.serving.wiring import Plan, build, memory_reach
from perdure.sidecar.files import FolderStateStore
from perdure.sidecar.memory import MemorySidecar
from perdure.types import JsonObject, RunId

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI


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

    async def start_pipeline(
        self, name: str, input: JsonObject | None = None, key: str | None = None, by: str = CALLER
    ) -> LocalPipelineRun:
        """Begin a run of a pipeline, or join the one that has this key; durable when this returns.

        Raises: NotFound (`pipeline_unknown`), Conflict (`key_reused`), Invalid (`key_malformed`), Busy.
        """
        service = self.service
        chosen = checked_key(key if key is not None else service.ids.new())
        accepted = await begin(
            service.runner, service.pipelines, name, input or {}, chosen, by=by, trace=current_trace_parent()
        )
        return LocalPipelineRun(service, accepted.run_id, accepted.joined)

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

            self._http = http_application(self._plan, Standing(self.service, up=True), self._routers)
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
