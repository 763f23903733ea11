"""`App`: what a service's `app.py` declares, as an ASGI application and as a runtime in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.clock import Clock, Ids, SystemClock, SystemIds
from perdure.settings import Settings, load_settings

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

    from perdure.agent.agent import DurableAgent
    from perdure.pipeline.pipeline import Pipeline, StepAgent
    from perdure.serving.lifespan import Keeper
    from perdure.serving.local import LocalRuntime
    from perdure.serving.service import Standing
    from perdure.serving.wiring import Part, Plan

Message = MutableMapping[str, Any]


class App:
    """Agents and pipelines as one service.

    An ASGI application: `uvicorn service:app` beside a Dapr sidecar serves it; nothing is built before the first
    call. `local()` runs the same in this process without Dapr. `steps` are agents that handle steps of pipelines of
    other services. `routers` are added to the HTTP side (they find the service with
    `perdure.serving.access.Running`); `parts` are context managers that live as long as the service. Settings come
    from the environment unless given.
    """

    def __init__(
        self,
        agents: Sequence[DurableAgent] = (),
        pipelines: Sequence[Pipeline] = (),
        settings: Settings | None = None,
        *,
        steps: Sequence[StepAgent] = (),
        routers: Sequence[APIRouter] = (),
        parts: Sequence[Part] = (),
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        self.agents = tuple(agents)
        self.pipelines = tuple(pipelines)
        self.steps = tuple(steps)
        self._settings = settings
        self._routers = tuple(routers)
        self._parts = tuple(parts)
        self._clock: Clock = clock or SystemClock()
        self._ids: Ids = ids or SystemIds()
        self._asgi: FastAPI | None = None
        self._begun: Keeper | None = None

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self.load()
        if self._asgi is not None:
            await self._asgi(scope, receive, send)

    def begin(self) -> None:
        """Build the service beside the sidecar from now on, in a task of the running loop that the first lifespan
        joins: what a crash interrupted goes on while the HTTP side is still being loaded.

        Raises: Invalid when the environment holds a wrong setting.
        """
        self._begun = self._keeper()
        self._begun.begin()

    def load(self) -> None:
        """Load the HTTP side, which takes longer than everything else; may run in a thread. Once it is, do nothing."""
        from perdure.observability.logs import load_logging

        if self._asgi is None:
            self._asgi = self._served()
            load_logging()

    def local(self, folder: Path | str | None = None) -> AbstractAsyncContextManager[LocalRuntime]:
        """The same agents in this process without Dapr. With a `folder` everything is kept there and found again.

        Raises: Conflict (`folder_in_use`) when another process has the folder open.
        """
        from perdure.serving.local import local_runtime

        return local_runtime(self.plan(), self._routers, Path(folder) if folder is not None else None)

    @property
    def settings(self) -> Settings:
        """What it runs with. Raises: Invalid when the environment holds a wrong setting."""
        if self._settings is None:
            self._settings = load_settings()
        return self._settings

    def plan(self, *, telemetry: bool = False) -> Plan:
        """What `wiring` builds it from. Raises: Invalid when a name is given twice."""
        from perdure.serving.wiring import Plan, named

        return Plan(
            agents=named(self.agents),
            pipelines=self.pipelines,
            steps=self.steps,
            parts=self._parts,
            settings=self.settings,
            clock=self._clock,
            ids=self._ids,
            app_id=self.settings.dapr.app_id,
            telemetry=telemetry,
        )

    def _keeper(self, standing: Standing | None = None) -> Keeper:
        from perdure.observability.logs import configure_logging
        from perdure.serving.lifespan import Keeper
        from perdure.serving.service import Standing
        from perdure.serving.wiring import dapr_reach

        seen = self.settings.observability
        configure_logging(format=seen.log_format, level=seen.log_level, contents=seen.contents)
        plan = self.plan(telemetry=True)
        return Keeper(plan, lambda: dapr_reach(plan.settings), standing or Standing())

    def _served(self) -> FastAPI:
        """The HTTP side beside a sidecar; its lifespan keeps the service."""
        from perdure.serving.http import http_application

        first = self._begun = self._begun or self._keeper()

        @asynccontextmanager
        async def life(app: FastAPI) -> AsyncIterator[None]:
            keeper, self._begun = self._begun or self._keeper(first.standing), None
            async with keeper.kept():
                yield

        return http_application(first.plan, first.standing, self._routers, life)
