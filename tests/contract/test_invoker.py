"""What every `Invoker` promises."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure.errors import NotFound, Transient
from perdure.sidecar.dapr.channel import DaprAddress
from perdure.sidecar.dapr.invoker import DaprInvoker
from perdure.sidecar.memory import MemoryInvoker
from perdure.sidecar.ports import Invoker


@pytest.fixture(params=["memory", pytest.param("dapr", marks=pytest.mark.sidecar)])
async def world(request: pytest.FixtureRequest, listener: Any) -> AsyncIterator[tuple[Invoker, str]]:
    """An invoker, and the id of an app that it reaches: the listener."""
    app_id = f"app-{secrets.token_hex(4)}"
    if request.param == "memory":
        yield MemoryInvoker({app_id: listener}), app_id
        return
    platform = request.getfixturevalue("platform")
    async with listener.listening():
        await asyncio.to_thread(platform.start_app_sidecar, app_id, listener.port)
        invoker = DaprInvoker(platform.address)
        try:
            yield invoker, app_id
        finally:
            await invoker.close()
            await asyncio.to_thread(platform.kill_app_sidecar, app_id)


async def test_method_path_body_and_headers_reach_the_app_and_its_answer_comes_back(
    world: tuple[Invoker, str], listener: Any
) -> None:
    invoker, app_id = world

    async def created(body: bytes) -> tuple[int, Any]:
        return 201, {"got": body.decode()}

    listener.answers["/turns/t-1"] = created
    answer = await invoker.call(app_id, "PUT", "/turns/t-1", body=b"hello", headers={"x-session": "s-1"})
    assert answer.status == 201
    assert answer.body == b'{"got":"hello"}'
    assert answer.headers["x-from"] == "listener"
    method, _, body, headers = await listener.hears("/turns/t-1")
    assert (method, body, headers["x-session"]) == ("PUT", b"hello", "s-1")


@pytest.mark.parametrize("status", [404, 409, 422, 500])
async def test_an_error_of_the_app_is_an_answer_like_any_other(
    world: tuple[Invoker, str], listener: Any, status: int
) -> None:
    invoker, app_id = world

    async def refused(_: bytes) -> tuple[int, Any]:
        return status, {"type": "key_taken"}

    listener.answers["/turns"] = refused
    answer = await invoker.call(app_id, "POST", "turns")
    assert (answer.status, answer.body) == (status, b'{"type":"key_taken"}')


async def test_an_unknown_app_is_named(world: tuple[Invoker, str]) -> None:
    invoker, _ = world
    with pytest.raises(NotFound, match="app-nobody") as caught:
        await invoker.call("app-nobody", "GET", "/card")
    assert caught.value.code == "app_unknown"


async def test_a_sidecar_that_is_away_is_transient() -> None:
    invoker = DaprInvoker(DaprAddress(http="http://127.0.0.1:1"))
    with pytest.raises(Transient):
        await invoker.call("app", "GET", "/card")
    await invoker.close()
