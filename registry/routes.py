"""The registry over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from perdure.agent.card import AgentCard
from perdure.agent.roster import TTL_S, Roster
from perdure.errors import PerdureError, Transient
from perdure.observability.logs import get_logger
from perdure.serving.access import Running
from perdure.serving.reply import reply
from perdure.serving.requests import Body
from perdure.serving.service import Service
from perdure.serving.sse import event_stream
from perdure.types import Json

log = get_logger(__name__)

SWEEP_S = TTL_S / 4
"""How often the store is looked at even if nobody asks: who watches learns of a death this much later."""

AgentPath = Annotated[str, Path(max_length=64)]
Instance = Annotated[str, Field(min_length=1, max_length=64)]


class RegisterBody(Body):
    """An agent that wants to be found."""

    card: Annotated[AgentCard, Field(strict=False)]
    instance: Instance


class InstanceBody(Body):
    """One instance of an agent."""

    instance: Instance


class Registry:
    """Routes and the part that keeps the roster; the roster exists while the service is up."""

    def __init__(self) -> None:
        self._roster: Roster | None = None
        self.router = APIRouter(prefix="/agents", tags=["registry"])
        self._routes()

    @asynccontextmanager
    async def keeping(self, service: Service) -> AsyncIterator[None]:
        """While open, who shows no life is dropped, and who watches is told."""
        store = service.doors.stores[service.settings.stores.registry]
        roster = self._roster = Roster(store, service.clock, prefix=f"{service.settings.dapr.namespace}/")
        async with asyncio.TaskGroup() as group:
            sweeping = group.create_task(_sweep(roster, service), name="registry sweep")
            try:
                yield
            finally:
                sweeping.cancel()
                self._roster = None

    @property
    def roster(self) -> Roster:
        """Raises: Transient (`starting`) until the service is up."""
        if self._roster is None:
            raise Transient("starting", "the registry is starting", retry_after_s=1)
        return self._roster

    def _routes(self) -> None:
        self.router.get("")(self.list_agents)
        self.router.post("")(self.register)
        self.router.get("/watch")(self.watch)
        self.router.get("/{name}")(self.show)
        self.router.post("/{name}/heartbeat")(self.heartbeat)
        self.router.post("/{name}/leave")(self.leave)

    async def list_agents(self, capability: Annotated[str, Query(max_length=256)] = "") -> Response:
        """All agents that live, or those with a capability."""
        cards: list[Json] = [card.model_dump(mode="json") for card in await self.roster.agents(capability)]
        return reply({"agents": cards})

    async def show(self, name: AgentPath) -> Response:
        """One agent's card."""
        return reply((await self.roster.agent(name)).model_dump(mode="json"))

    async def register(self, body: RegisterBody) -> Response:
        """Make an agent known; repeat it to change the card."""
        await self.roster.register(body.card, body.instance)
        return reply(body.card.model_dump(mode="json"), 201)

    async def heartbeat(self, name: AgentPath, body: InstanceBody) -> Response:
        """Show life; 404 means: register again."""
        await self.roster.beat(name, body.instance)
        return reply({"name": name})

    async def leave(self, name: AgentPath, body: InstanceBody) -> Response:
        """Say goodbye."""
        await self.roster.leave(name, body.instance)
        return reply({"name": name})

    async def watch(self, service: Running) -> Response:
        """Who is there, then who comes (`joined`) and goes (`left`), as server-sent events."""
        return event_stream(self.roster.watch(), keep_alive_s=service.settings.http.keep_alive_s, stop=service.draining)


async def _sweep(roster: Roster, service: Service) -> None:
    while True:
        try:
            await roster.refresh()
        except PerdureError as error:
            log.warning("registry_sweep_put_off", code=error.code, wait_s=SWEEP_S)
        await service.clock.sleep(SWEEP_S)
