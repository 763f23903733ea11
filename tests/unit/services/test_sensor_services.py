"""The services of the repository in one process, over memory doors: every app beside its own stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest
from agents.alert_manager.agent import manager
from agents.data_analyzer.agent import analyzer
from agents.data_collector.agent import collector
from agents.data_processor.agent import processor
from orchestrator.pipelines import sensors
from registry.routes import Registry

from perdure.agent.directory import announced
from perdure.pipeline.pipeline import Pipeline, StepAgent
from perdure.serving.app import App
from perdure.serving.http import http_application
from perdure.serving.service import Service, Standing
from perdure.serving.wiring import build, memory_reach
from perdure.settings import DaprSettings, Settings
from perdure.sidecar.memory.sidecar import MemoryNetwork, MemorySidecar

STORES = ("conversationstore", "workflowstatestore", "agentstatestore", "registrystore")
CHAIN = {
    "data-collector": collector,
    "data-processor": processor,
    "data-analyzer": analyzer,
    "alert-manager": manager,
}


class Town:
    """Apps that reach each other by app-id; `client(app)` is a caller of one."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.network = MemoryNetwork(shared_stores=("registrystore",))
        self.services: dict[str, Service] = {}
        self._stack = stack

    async def start(self, app_id: str, **declared: Any) -> AsyncExitStack:
        """Serve an app; closing what is returned ends it."""
        life = AsyncExitStack()
        await self._stack.enter_async_context(life)
        routers = declared.get("routers", ())
        app = App(settings=Settings(dapr=DaprSettings(app_id=app_id)), **declared)
        sidecar = MemorySidecar(app_id, stores=STORES, network=self.network)
        plan = app.plan()
        service = await life.enter_async_context(build(plan, memory_reach(sidecar), lambda _: None))
        http = http_application(plan, Standing(service, up=True), routers)
        self.network.apps[app_id] = http
        life.callback(self.network.apps.pop, app_id)
        self.services[app_id] = service
        return life

    def client(self, app_id: str) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app=self.network.apps[app_id])
        return httpx2.AsyncClient(transport=transport, base_url=f"http://{app_id}", timeout=20)


@asynccontextmanager
async def town() -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        yield Town(stack)


async def test_a_run_passes_through_all_four_services_and_each_keeps_its_state() -> None:
    async with town() as place:
        for app_id, agent in CHAIN.items():
            await place.start(app_id, steps=[agent])
        await place.start("orchestrator", pipelines=[sensors])
        body = {"pipeline": "sensors", "input": {"anomaly_chance": 1.0}, "key": "one", "wait_s": 10}
        async with place.client("orchestrator") as client:
            ran = (await client.post("/runs", json=body)).json()
            again = (await client.post("/runs", json=body)).json()
            other = await client.post("/runs", json={**body, "input": {}})
        assert ran["status"] == "done"
        assert again["id"] == ran["id"]
        assert (other.status_code, other.json()["code"]) == (409, "key_reused")
        assert ran["outputs"]["alert"]["alerts"]
        assert [(step["step"], step["status"], step["attempts"]) for step in ran["steps"]] == [
            (name, "done", 1) for name in ("collect", "process", "analyze", "alert")
        ]
        states = {}
        for app_id in CHAIN:
            async with place.client(app_id) as client:
                states |= (await client.get("/state")).json()
        assert states["data_collector"]["collection_count"] == 1
        assert states["data_processor"]["processed_count"] == 1
        assert states["data_analyzer"]["anomaly_count"] == states["alert_manager"]["alert_count"] >= 1


async def test_what_a_handler_is_told_is_what_the_log_says_and_stays_so_for_another_process() -> None:
    heard: list[dict[str, Any]] = []
    pipeline, agent = Pipeline("p"), StepAgent("worker")
    pipeline.remote("first", "worker", effect="read")
    pipeline.remote("second", "worker", depends_on=["first"], effect="read", retry_delay=0.01)

    @agent.step(effect="read")
    async def first(message: dict[str, Any], context: Any) -> dict[str, Any]:
        return {"n": 1}

    @agent.step(effect="read")
    async def second(message: dict[str, Any], context: Any) -> dict[str, Any]:
        heard.append(message)
        if len(heard) == 1:
            raise RuntimeError("not yet")
        return {"n": 2}

    async with town() as place:
        await place.start("worker", steps=[agent])
        life = await place.start("orchestrator", pipelines=[pipeline])
        async with place.client("orchestrator") as client:
            ran = (await client.post("/runs", json={"pipeline": "p", "wait_s": 10})).json()
        assert (ran["status"], ran["steps"][1]["attempts"]) == ("done", 2)
        assert heard[0] == heard[1]
        assert heard[0]["received_at"] == ran["steps"][0]["ended_at"]
        await life.aclose()
        await place.start("orchestrator", pipelines=[pipeline])
        async with place.client("orchestrator") as client:
            assert (await client.get(f"/runs/{ran['id']}")).json() == ran


async def test_a_run_waits_for_an_app_that_is_away() -> None:
    async with town() as place:
        await place.start("orchestrator", pipelines=[sensors])
        for app_id in list(CHAIN)[1:]:
            await place.start(app_id, steps=[CHAIN[app_id]])
        async with place.client("orchestrator") as client:
            begun = await client.post("/runs", json={"pipeline": "sensors"})
            assert begun.status_code == 202
            await place.start("data-collector", steps=[collector])
            run = begun.headers["location"]
            async with asyncio.timeout(10):
                while (await client.get(run)).json()["status"] != "done":
                    await asyncio.sleep(0.02)


async def test_a_cancelled_run_stays_cancelled_and_a_paused_one_starts_nothing() -> None:
    async with town() as place:
        await place.start("orchestrator", pipelines=[sensors])
        async with place.client("orchestrator") as client:
            run = (await client.post("/runs", json={"pipeline": "sensors"})).headers["location"]
            assert (await client.post(f"{run}/pause")).json()["status"] == "paused"
            assert (await client.post(f"{run}/resume")).json()["status"] != "paused"
            await client.post(f"{run}/cancel", json={"reason": "enough"})
            async with asyncio.timeout(10):
                while (shown := (await client.get(run)).json())["status"] != "cancelled":
                    await asyncio.sleep(0.02)
            assert shown["reason"] == "enough"
            refused = await client.post(f"{run}/resume")
            assert (refused.status_code, refused.json()["code"]) == (409, "run_closed")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/runs", {"pipeline": "sensor"}, 404, "pipeline_unknown"),
        ("/runs", {"pipeline": 5}, 400, "request_invalid"),
        ("/runs", {"pipeline": "sensors", "more": 1}, 400, "request_invalid"),
        ("/runs", {"pipeline": "sensors", "key": "a\nb"}, 400, "key_malformed"),
        ("/runs/nonsense/pause", {}, 400, "run_id_malformed"),
        ("/runs/aaaaaaaaaaaaaaaaaaaaaaaaaa-1/cancel", {}, 404, "run_unknown"),
    ],
)
async def test_bad_requests_get_the_right_problem(path: str, body: dict[str, Any], status: int, code: str) -> None:
    async with town() as place:
        await place.start("orchestrator", pipelines=[sensors])
        async with place.client("orchestrator") as client:
            answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_services_find_each_other_in_the_registry_and_are_gone_when_they_left() -> None:
    async with town() as place:
        registry = Registry()
        await place.start("registry", routers=[registry.router], parts=[registry.keeping])
        life = await place.start(
            "data-collector", steps=[collector], parts=[announced(collector.name, capabilities=["sensors"])]
        )
        async with place.client("registry") as client, asyncio.timeout(10):
            while not (found := (await client.get("/agents", params={"capability": "sensors"})).json()["agents"]):
                await asyncio.sleep(0.01)
            assert [(card["name"], card["app_id"]) for card in found] == [("data_collector", "data-collector")]
            unknown = await client.get("/agents/data_colector")
            assert unknown.json()["detail"] == "agent 'data_colector' is unknown; registered: data_collector"
            await life.aclose()
            assert (await client.get("/agents")).json()["agents"] == []
