"""The seven shipped services on a real Dapr: what they do for each other, and what wrong or unlucky callers hear."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from landscape import ROOT, complaints, nothing_left, run_file, until
from perdure.dev import Platform
from perdure.errors import PerdureError

pytestmark = [pytest.mark.sidecar, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

SENSOR_APPS = ("data-collector", "data-processor", "data-analyzer", "alert-manager")
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Town:
    """All services, called through the registry's sidecar unless a test says otherwise."""

    platform: Platform
    folder: Path
    http: httpx2.AsyncClient

    def at(self, app: str, path: str) -> str:
        return f"{self.platform.app('registry').dapr_url}/v1.0/invoke/{app}/method{path}"

    async def get(self, app: str, path: str) -> httpx2.Response:
        return await self.http.get(self.at(app, path))

    async def post(self, app: str, path: str, body: object = None, **more: Any) -> httpx2.Response:
        if body is not None:
            more["json"] = body
        return await self.http.post(self.at(app, path), **more)

    def logged(self, app: str) -> list[dict[str, Any]]:
        lines = self.platform.log(app).read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    """All seven, started as `make run` does; at the end nothing is left and no log holds a traceback."""
    folder = tmp_path_factory.mktemp("town")
    async with httpx2.AsyncClient(timeout=40) as http:
        async with Platform(folder / ".perdure", run_file=run_file(folder), ports="auto") as platform:
            yield Town(platform, folder, http)
            assert not complaints(platform, [replica.name for replica in platform.topology.replicas])
        await nothing_left(platform, folder)


async def test_all_seven_are_ready(town: Town) -> None:
    """Each says of its worker and its stores that they are well."""
    replicas = town.platform.topology.replicas
    assert len(replicas) == 7
    for replica in replicas:
        ready = await town.get(replica.app_id, "/readyz")
        assert (ready.status_code, set(ready.json()["checks"].values())) == (200, {"ok"}), ready.text


async def test_the_assistant_uses_its_three_tools(town: Town) -> None:
    """Notes become files, bookings lines of a ledger, and what it read is in its answer, which names its model."""
    text = "Note that the heating is off. Book room Oslo for 2026-12-24"
    first = await town.post("assistant", "/turns", {"text": text, "key": "guest-1"})
    assert (first.status_code, first.json()["status"]) == (200, "done"), first.text
    assert "Booked room Oslo for 2026-12-24 (booking 1)" in first.json()["answer"]
    assert "offline model" in first.json()["answer"]
    desk = town.folder / ".perdure" / "assistant"
    assert [file.read_text() for file in (desk / "notes").glob("*.txt")] == ["the heating is off\n"]
    (booking,) = [json.loads(line) for line in (desk / "bookings.jsonl").read_text().splitlines()]
    assert (booking["room"], booking["night"]) == ("Oslo", "2026-12-24")
    notes = await town.post("assistant", "/turns", {"text": "Read me my notes"})
    assert "1 notes: the heating is off" in notes.json()["answer"]
    again = await town.post("assistant", "/turns", {"text": text, "key": "guest-1"})
    assert again.json() == first.json()
    assert len((desk / "bookings.jsonl").read_text().splitlines()) == 1


async def test_a_sensor_run_goes_through_four_services(town: Town) -> None:
    """Readings become alerts on their way through the chain, and the state of every service tells of it."""
    before = [next(iter((await town.get(app, "/state")).json().values())) for app in SENSOR_APPS]
    body = {"pipeline": "sensors", "input": {"anomaly_chance": 1}, "key": "night-1", "wait_s": 20}
    done = await town.post("orchestrator", "/runs", body)
    assert (done.status_code, done.json()["status"]) == (200, "done"), done.text
    assert [step["app"] for step in done.json()["steps"]] == list(SENSOR_APPS)
    alerts = done.json()["outputs"]["alert"]["alerts"]
    assert alerts
    assert all(alert["value"] > alert["threshold"] for alert in alerts)
    grown = []
    for app, old, name in zip(SENSOR_APPS, before, ("collection", "processed", "analysis", "alert"), strict=True):
        (new,) = (await town.get(app, "/state")).json().values()
        grown.append(new[f"{name}_count"] - old.get(f"{name}_count", 0))
    assert grown == [1, 1, 1, len(alerts)]
    shown = await town.get("orchestrator", done.headers["location"])
    assert shown.json() == done.json()
    again = await town.post("orchestrator", "/runs", body)
    assert again.json()["id"] == done.json()["id"]


async def test_the_registry_lists_agents_and_tells_who_comes_and_goes(town: Town) -> None:
    """All agents are listed; a new one joins the stream of `watch`, and leaves it when it says goodbye."""

    async def everybody() -> bool:
        listed = {card["name"] for card in (await town.get("registry", "/agents")).json()["agents"]}
        return listed == {"assistant", "data_collector", "data_processor", "data_analyzer", "alert_manager"}

    await until(everybody, "all agents are listed")
    card = {"name": "visitor", "app_id": "assistant", "description": "Just passing.", "version": "1"}
    seen: list[str] = []
    url = f"{town.platform.app('registry').url}/agents/watch"
    async with asyncio.timeout(20), town.http.stream("GET", url) as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data:"):
                continue
            event = json.loads(line.removeprefix("data:"))
            seen.append(f"{event['t']} {event.get('name') or event['agent']['name']}")
            if len(seen) == 5:
                joined = await town.post("registry", "/agents", {"card": card, "instance": "i-1"})
                assert joined.status_code == 201, joined.text
            if seen[-1] == "joined visitor":
                await town.post("registry", "/agents/visitor/leave", {"instance": "i-1"})
            if seen[-1] == "left visitor":
                break
    assert seen[5:] == ["joined visitor", "left visitor"]
    sensors = (await town.get("registry", "/agents?capability=sensors")).json()["agents"]
    assert len(sensors) == 4
    unknown = await town.get("registry", "/agents/assistent")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "agent_unknown")


async def test_a_component_is_closed_to_who_is_not_in_its_scopes(town: Town) -> None:
    """The secrets are the assistant's; others' sidecars do not know them. Nor does one app see another's state."""
    path = "/v1.0/secrets/secretstore/HOME"
    allowed = await town.http.get(f"{town.platform.app('assistant').dapr_url}{path}")
    refused = await town.http.get(f"{town.platform.app('orchestrator').dapr_url}{path}")
    assert (allowed.status_code, refused.status_code) == (200, 500), refused.text
    assert refused.json()["errorCode"] == "ERR_SECRET_STORES_NOT_CONFIGURED"
    state = "/v1.0/state/agentstatestore"
    await town.http.post(f"{town.platform.app('assistant').dapr_url}{state}", json=[{"key": "mine", "value": 1}])
    elsewhere = await town.http.get(f"{town.platform.app('data-analyzer').dapr_url}{state}/mine")
    assert elsewhere.status_code == 204


WRONG: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("assistant", "/turns", {"json": {"text": "hi", "agent": "assistent"}}, 404, "agent_unknown"),
    ("assistant", "/turns", {"content": b'{"text": '}, 400, "json_malformed"),
    ("assistant", "/turns", {"content": b"\xff\xfe"}, 400, "json_malformed"),
    ("assistant", "/turns", {"json": {"text": 5}}, 400, "request_invalid"),
    ("assistant", "/turns", {"json": {"text": "hi", "wait": 5}}, 400, "request_invalid"),
    ("assistant", "/turns", {"json": {"text": "x" * 2_000_000}}, 413, "body_too_large"),
    ("assistant", "/turns/nonsense/cancel", {"json": {}}, 400, "run_id_malformed"),
    ("assistant", f"/turns/{'a' * 26}-1/cancel", {"json": {}}, 404, "run_unknown"),
    ("orchestrator", "/runs", {"json": {"pipeline": "sensor"}}, 404, "pipeline_unknown"),
    ("orchestrator", "/runs", {"json": {"pipeline": "sensors", "input": []}}, 400, "request_invalid"),
    ("data-collector", "/steps/collekt", {"json": {"key": "k", "run": "r", "attempt": 1, "fence": 1, "message": {}}},
     404, "step_unknown"),
    ("data-collector", "/steps/collect", {"json": {"key": "k"}}, 400, "request_invalid"),
    ("assistant", "/nowhere", {"json": {}}, 404, "path_unknown"),
    ("registry", "/agents", {"json": {"card": {}, "instance": "i"}}, 400, "request_invalid"),
]  # fmt: skip


@pytest.mark.parametrize(("app", "path", "sent", "status", "code"), WRONG)
async def test_what_is_wrong_is_said_as_a_problem(
    town: Town, app: str, path: str, sent: dict[str, Any], status: int, code: str
) -> None:
    """Through service invocation, too, a wrong request gets its problem; it is no failure, so no log tells of one."""
    before = len(town.logged(app))
    headers = {"content-type": "application/json"} if "content" in sent else {}
    answer = await town.post(app, path, headers=headers, **sent)
    assert answer.headers["content-type"] == PROBLEM, answer.text
    said = answer.json()
    assert (answer.status_code, said["code"], said["type"]) == (status, code, f"urn:perdure:problem:{code}"), said
    assert re.fullmatch("[0-9a-f]{32}", said["trace_id"])
    assert not [line for line in town.logged(app)[before:] if line["level"] in ("warning", "error")]


async def test_a_key_means_one_text(town: Town) -> None:
    """The same key with another text is a conflict, and the first turn stays as it is."""
    first = await town.post("assistant", "/turns", {"text": "List my notes", "key": "once"})
    other = await town.post("assistant", "/turns", {"text": "Note everything", "key": "once"})
    assert (other.status_code, other.json()["code"], other.headers["content-type"]) == (409, "key_reused", PROBLEM)
    again = await town.post("assistant", "/turns", {"text": "List my notes", "key": "once"})
    assert again.json() == first.json()
    body = {"pipeline": "sensors", "key": "once", "wait_s": 20}
    assert (await town.post("orchestrator", "/runs", body)).status_code == 200
    other = await town.post("orchestrator", "/runs", {**body, "input": {"anomaly_chance": 0.5}})
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")


async def test_a_store_that_is_away_is_said_and_found_again(town: Town) -> None:
    """While the store is down: 503 with what is missing, from `/readyz`, too; afterwards everything is there."""
    kept = await town.post("assistant", "/turns", {"text": "Note before the fall", "key": "before"})
    before = len(town.logged("assistant"))
    direct = town.platform.app("assistant").url
    await town.platform.stop("valkey")
    try:
        ready = await town.http.get(f"{direct}/readyz")
        assert (ready.status_code, ready.headers["content-type"]) == (503, PROBLEM)
        for store in ("conversationstore", "workflowstatestore", "agentstatestore", "registrystore"):
            assert f"store {store}" in ready.json()["detail"]
        assert (await town.http.get(f"{direct}/healthz")).status_code == 200
        asked = await town.http.post(f"{direct}/turns", json={"text": "Note after the fall", "key": "after"})
        assert (asked.status_code, asked.headers["content-type"]) == (503, PROBLEM), asked.text
        assert asked.headers["retry-after"]
        told = [line for line in town.logged("assistant")[before:] if line.get("trace_id") == asked.json()["trace_id"]]
        assert [line["event"] for line in told] == ["request_put_off"]
    finally:
        await town.platform.start("valkey")
    await town.platform.ready(timeout_s=60)
    assert (await town.http.get(f"{direct}/readyz")).status_code == 200
    answer = await town.http.post(f"{direct}/turns", json={"text": "Note after the fall", "key": "after"})
    assert (answer.status_code, answer.json()["status"]) == (200, "done")
    assert (await town.http.get(f"{direct}/turns/{kept.json()['id']}")).json() == kept.json()


async def test_a_run_waits_for_a_service_that_is_away(town: Town) -> None:
    """A sensor run begun while one of its services is down goes on when that one is back."""
    await town.platform.stop("data-analyzer")
    body = {"pipeline": "sensors", "input": {"anomaly_chance": 0}, "key": "patience"}
    run = (await town.post("orchestrator", "/runs", body)).json()["id"]

    async def status(step: str) -> str:
        shown = (await town.get("orchestrator", f"/runs/{run}")).json()
        return next(str(one["status"]) for one in shown["steps"] if one["step"] == step)

    async def processed() -> bool:
        return await status("process") == "done"

    await until(processed, "the step before is done")
    assert await status("analyze") == "running"
    await town.platform.start("data-analyzer")

    async def done() -> bool:
        return await status("alert") == "done"

    await until(done, "the run went on")


async def test_a_frozen_store_takes_time_and_loses_nothing(town: Town) -> None:
    """Requests get 503 within seconds while the store hangs; asked again with the key, the turn is done once."""
    direct = town.platform.app("assistant").url
    text = "Book room Bergen for 2026-12-31"
    town.platform.signal("valkey", signal.SIGSTOP)
    try:
        asked = await town.http.post(f"{direct}/turns", json={"text": text, "key": "frozen"})
        assert asked.status_code == 503, asked.text
    finally:
        town.platform.signal("valkey", signal.SIGCONT)

    async def done() -> bool:
        answer = await town.http.post(f"{direct}/turns", json={"text": text, "key": "frozen"})
        return answer.status_code == 200 and answer.json()["status"] == "done"

    await until(done, "the turn is done")
    ledger = (town.folder / ".perdure" / "assistant" / "bookings.jsonl").read_text()
    assert ledger.count("Bergen") == 1


async def test_a_missing_component_is_named(tmp_path: Path) -> None:
    """Without its store the service says, to its callers and once in its log, what is missing and where to add it."""
    components = tmp_path / "components"
    components.mkdir()
    for file in (ROOT / "components").glob("*.yaml"):
        if file.name != "conversationstore.yaml":
            (components / file.name).write_text(file.read_text())
    platform = Platform(
        tmp_path / ".perdure", run_file=run_file(tmp_path), ports="auto", services=["assistant"], resources=components,
        ready_within_s=60,
    )  # fmt: skip
    starting = asyncio.create_task(platform.__aenter__())
    try:
        async with httpx2.AsyncClient(timeout=40) as http:

            async def refused() -> httpx2.Response | None:
                try:
                    url = f"{platform.app('assistant').url}/turns"
                    return await http.post(url, json={"text": "hi"})
                except (httpx2.TransportError, PerdureError):
                    return None  # not there yet

            said = await until(refused, "the service answers")
            assert (said.status_code, said.headers["content-type"]) == (503, PROBLEM), said.text
            assert "no state store component 'conversationstore'" in said.json()["detail"]
            assert "add it to the components folder" in said.json()["detail"]
            assert starting.done() is False
            log = platform.log("assistant").read_text()
            assert log.count('"event": "service_not_up"') == 1
    finally:
        starting.cancel()
        await asyncio.wait((starting,))
    await nothing_left(platform, tmp_path)
