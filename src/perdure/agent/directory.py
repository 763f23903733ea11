"""The way to the registry: announce oneself, find others. A service works without it; it just is not found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, Protocol
from urllib.parse import quote

import orjson
from pydantic import TypeAdapter

from perdure.agent.agent import DurableAgent
from perdure.agent.card import AgentCard, card_of
from perdure.clock import Clock, Ids
from perdure.errors import Broken, NotFound, PerdureError, Transient
from perdure.observability.logs import get_logger
from perdure.sidecar.ports import Answer, Doors, Invoker

log = get_logger(__name__)

REGISTRY = "registry"
"""App-id of the registry."""

BEAT_S = 5.0
"""How often an agent shows that it lives: a third of what the registry waits."""

TIMEOUT_S = 3.0
"""A registry that takes longer is as good as away; nothing important waits for it."""

_CARDS: TypeAdapter[list[AgentCard]] = TypeAdapter(list[AgentCard])


class Directory:
    """The registry behind service invocation.

    Everything raises Transient (`registry_away`) while it cannot be reached.
    """

    def __init__(self, invoker: Invoker, *, app_id: str = REGISTRY) -> None:
        self._invoker = invoker
        self._app_id = app_id

    async def agents(self, capability: str = "") -> list[AgentCard]:
        """All agents that live, or those with a capability."""
        query = f"?capability={quote(capability, safe='')}" if capability else ""
        answer = await self._call("GET", f"/agents{query}")
        return _CARDS.validate_python(orjson.loads(answer.body)["agents"])

    async def agent(self, name: str) -> AgentCard:
        """One agent. Raises: NotFound (`agent_unknown`: *agent 'wether' is unknown; registered: weather*)."""
        return AgentCard.model_validate_json((await self._call("GET", f"/agents/{quote(name, safe='')}")).body)

    async def resolve(self, name: str) -> str:
        """The app-id at which `name` is asked. Raises: NotFound (`agent_unknown`)."""
        return (await self.agent(name)).app_id

    async def register(self, card: AgentCard, instance: str) -> None:
        """Make the agent known."""
        body = {"card": card.model_dump(mode="json"), "instance": instance}
        await self._call("POST", "/agents", body)

    async def beat(self, name: str, instance: str) -> None:
        """Show life. Raises: NotFound (`agent_unknown`): register again."""
        await self._call("POST", f"/agents/{name}/heartbeat", {"instance": instance})

    async def leave(self, name: str, instance: str) -> None:
        """Say goodbye."""
        await self._call("POST", f"/agents/{name}/leave", {"instance": instance})

    @asynccontextmanager
    async def announcing(self, card: AgentCard, instance: str, clock: Clock) -> AsyncIterator[None]:
        """While open, the agent is registered and shows life; a registry that is away changes nothing else."""
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(self._beat_on(card, instance, clock), name=f"heartbeat {card.name}")
            try:
                yield
            finally:
                beating.cancel()
        try:
            await self.leave(card.name, instance)
        except PerdureError as error:  # it will be missed soon enough
            log.debug("registry_not_told", code=error.code, agent=card.name)

    async def _beat_on(self, card: AgentCard, instance: str, clock: Clock) -> None:
        registered, away = False, False
        while True:
            try:
                if registered:
                    await self.beat(card.name, instance)
                else:
                    await self.register(card, instance)
                registered, away = True, False
            except NotFound:
                registered = False
                continue
            except PerdureError as error:
                if not away:
                    log.warning("registry_away", code=error.code, agent=card.name, wait_s=BEAT_S)
                registered, away = False, True
            await clock.sleep(BEAT_S)

    async def _call(self, method: str, path: str, body: Any = None) -> Answer:
        data = b"" if body is None else orjson.dumps(body)
        try:
            answer = await self._invoker.call(
                self._app_id, method, path, body=data, headers={"content-type": "application/json"}, timeout_s=TIMEOUT_S
            )
        except (NotFound, Transient) as error:
            raise Transient("registry_away", f"the registry ({self._app_id}) is away: {error.message}") from error
        if answer.status < 300:
            return answer
        raise _refusal(answer)


def _refusal(answer: Answer) -> PerdureError:
    try:
        said = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        said = {}
    code = str(said.get("code", "")) if isinstance(said, dict) else ""
    if code == "agent_unknown":
        return NotFound(code, str(said["detail"]))
    if answer.status in (429, 502, 503, 504):
        return Transient("registry_away", f"the registry puts requests off ({answer.status} {code})")
    return Broken("registry_refuses", f"the registry refuses the request ({answer.status} {code}); see its log")


class Reachable(Protocol):
    """What is needed of a running service to announce its agents."""

    @property
    def app_id(self) -> str: ...

    @property
    def doors(self) -> Doors: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def ids(self) -> Ids: ...


def announced(
    agent: DurableAgent | str, description: str = "", *, capabilities: tuple[str, ...] | list[str] = ()
) -> Callable[[Reachable], AbstractAsyncContextManager[None]]:
    """A part for `App(parts=[...])`: the agent is in the registry for as long as the service runs.

    `agent` is a declared agent, or the name of one that handles steps.
    """

    def part(service: Reachable) -> AbstractAsyncContextManager[None]:
        if isinstance(agent, DurableAgent):
            card = card_of(agent, service.app_id, *capabilities)
        else:
            card = AgentCard(
                name=agent, app_id=service.app_id, description=description, capabilities=tuple(capabilities),
                version=version("perdure"),
            )  # fmt: skip
        return Directory(service.doors.invoker).announcing(card, service.ids.new(), service.clock)

    return part
