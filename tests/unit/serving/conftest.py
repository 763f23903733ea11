"""A service on the memory doors, reached over ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import httpx2
import pytest

from perdure.agent.agent import DurableAgent
from perdure.llm.model import ModelRequest
from perdure.serving.app import App
from perdure.serving.local import LocalRuntime
from perdure.settings import DaprSettings, HttpSettings, Settings
from perdure.tools import tool

SMALL_BODY = 4096
TOKEN = "s3cret"


@dataclass(frozen=True)
class Reached:
    """A service and a client of it."""

    runtime: LocalRuntime
    client: httpx2.AsyncClient


Opening = Callable[..., AbstractAsyncContextManager[Reached]]


@tool(effect="once", approval=True)
async def send_money(amount: int) -> str:
    """Send money."""
    return f"sent {amount}"


def weather() -> DurableAgent:
    """Says what it heard."""

    def echo(request: ModelRequest) -> str:
        return f"heard: {request.messages[-1].text}"

    return DurableAgent("weather", model=echo)


def banker() -> DurableAgent:
    """Asks a person before it pays."""
    return DurableAgent("banker", model='scripted:@send_money {"amount": 5} | {result}', tools=[send_money])


@asynccontextmanager
async def opened(*agents: DurableAgent, token: str = "", **extra: object) -> AsyncIterator[Reached]:
    dapr = DaprSettings.model_validate({"app_id": "bank", **({"app_token": token} if token else {})})
    settings = Settings(dapr=dapr, http=HttpSettings(max_body_bytes=SMALL_BODY, keep_alive_s=0.05))
    app = App(agents=agents or (weather(),), settings=settings, **extra)  # type: ignore[arg-type]
    async with app.local() as runtime:
        transport = httpx2.ASGITransport(app=runtime.http, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://bank") as client:
            yield Reached(runtime, client)


@pytest.fixture
async def service() -> AsyncIterator[Reached]:
    async with opened(weather()) as reached:
        yield reached


@pytest.fixture
async def bank() -> AsyncIterator[Reached]:
    async with opened(banker()) as reached:
        yield reached


@pytest.fixture
def opening() -> Opening:
    return opened
