"""What a service shows beside turns: probes, metrics, card, API description, the token, the sidecar's paths."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter

from perdure.agent.agent import DurableAgent
from perdure.errors import SidecarUnavailable
from perdure.observability.context import log_fields
from perdure.serving.app import App
from perdure.serving.http import http_application
from perdure.serving.service import Service, Standing
from perdure.settings import Settings
from perdure.sidecar.ports import Delivery, Envelope


async def test_a_running_service_is_alive_and_ready(service: Any) -> None:
    assert (await service.client.get("/healthz")).json() == {"status": "ok"}
    ready = await service.client.get("/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["checks"].values()) == {"ok"}


async def test_a_store_that_is_away_is_named(service: Any, monkeypatch: Any) -> None:
    store = service.runtime.service.doors.stores["conversationstore"]

    async def away() -> None:
        raise SidecarUnavailable("sidecar_unavailable", "nobody answers at 127.0.0.1:1")

    monkeypatch.setattr(store, "check", away)
    reply = await service.client.get("/readyz")
    assert reply.status_code == 503
    assert "store conversationstore: nobody answers" in reply.json()["detail"]
    assert reply.headers["retry-after"] == "1"


async def test_a_service_that_is_not_up_says_so_and_is_alive() -> None:
    plan = App(agents=[DurableAgent("late", model="scripted:hi")], settings=Settings()).plan()
    app = http_application(plan, Standing(reason="nobody answers at 127.0.0.1:1"))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://late") as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).json()["checks"] == {"service": "nobody answers at 127.0.0.1:1"}
        reply = await client.post("/turns", json={"text": "hi"})
        assert (reply.status_code, reply.json()["code"]) == (503, "starting")
        assert "nobody answers" in reply.json()["detail"]
        assert reply.headers["retry-after"] == "1"


async def test_metrics_are_for_prometheus(service: Any) -> None:
    await service.client.post("/turns", json={"text": "hi"})
    reply = await service.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert "perdure_claims_total" in reply.text


async def test_the_card_names_agents_and_tools_but_no_instructions(bank: Any) -> None:
    card = (await bank.client.get("/card")).json()
    assert card["app_id"] == "bank"
    assert card["pipelines"] == []
    (agent,) = card["agents"]
    assert agent["name"] == "banker"
    assert agent["tools"][0]["name"] == "send_money"
    assert agent["tools"][0]["effect"] == "once"
    assert "instructions" not in agent


async def test_the_api_description_holds_every_documented_path(service: Any) -> None:
    described = (await service.client.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    orders = [f"/turns/{{turn}}/{order}" for order in ("pause", "resume", "cancel", "signal", "steer", "events")]
    for path in ("/turns", "/turns/{turn}", "/sessions/{session}", "/runs", "/card", "/healthz", "/readyz", *orders):
        assert path in described["paths"], path
    known = set(described["components"]["schemas"])
    for reference in set(_references(described)):
        assert reference.removeprefix("#/components/schemas/") in known


def _references(node: Any) -> Any:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


@pytest.mark.parametrize(
    ("headers", "code"),
    [({}, "token_missing"), ({"dapr-api-token": "wrong"}, "token_wrong"), ({"dapr-api-token": ""}, "token_wrong")],
)
@pytest.mark.parametrize(
    "path", ["/runs", "/card", "/metrics", "/dapr/subscribe", "/openapi.json", "/nothing", "//healthz"]
)
async def test_without_the_token_nothing_is_answered(
    opening: Any, path: str, headers: dict[str, str], code: str
) -> None:
    async with opening(token="s3cret") as reached:
        reply = await reached.client.get(f"http://bank{path}", headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (401, code)


async def test_with_the_token_everything_is_and_probes_need_none(opening: Any) -> None:
    async with opening(token="s3cret") as reached:
        assert (await reached.client.get("/card", headers={"dapr-api-token": "s3cret"})).status_code == 200
        assert (await reached.client.get("/healthz")).status_code == 200
        assert (await reached.client.get("/readyz")).status_code == 200


@pytest.mark.parametrize(("token", "by"), [("s3cret", "shop"), ("", "unverified:shop")])
async def test_the_caller_is_recorded_and_marked_where_nothing_proves_it(opening: Any, token: str, by: str) -> None:
    headers = {"dapr-api-token": token, "dapr-caller-app-id": "shop"}
    async with opening(token=token) as reached:
        turn = (await reached.client.post("/turns", json={"text": "hi"}, headers=headers)).json()["id"]
        stream = await reached.client.get(f"/turns/{turn}/events", headers=headers)
    first = next(line for line in stream.text.splitlines() if line.startswith("data: "))
    assert json.loads(first.removeprefix("data: "))["by"] == by


class Inbox:
    """A part of a service that listens to a topic and answers as told."""

    def __init__(self, verdict: Delivery = Delivery.SUCCESS) -> None:
        self.got: list[Envelope] = []
        self.verdict = verdict

    @asynccontextmanager
    async def part(self, service: Service) -> AsyncIterator[None]:
        service.doors.buses["messagepubsub"].subscribe("orders", self._take, dead_letter="orders.dead-letter")
        service.doors.jobs.on("tidy", self._tick)
        yield

    async def _take(self, message: Envelope) -> Delivery:
        self.got.append(message)
        return self.verdict

    async def _tick(self, data: dict[str, Any]) -> None:
        self.got.append(Envelope("tick", "job", "", data))


EVENT = {"specversion": "1.0", "id": "m-1", "source": "shop", "type": "order", "data": {"n": 1}, "tenant": "a"}


async def test_the_sidecar_is_told_what_to_deliver_and_where_to_bury(opening: Any) -> None:
    inbox = Inbox()
    async with opening(parts=[inbox.part]) as reached:
        listed = (await reached.client.get("/dapr/subscribe")).json()
    assert listed == [
        {
            "pubsubname": "messagepubsub",
            "topic": "orders",
            "route": "/events/orders",
            "deadLetterTopic": "orders.dead-letter",
        }
    ]


@pytest.mark.parametrize("verdict", list(Delivery))
async def test_a_message_reaches_its_handler_and_the_verdict_the_sidecar(opening: Any, verdict: Delivery) -> None:
    inbox = Inbox(verdict)
    async with opening(parts=[inbox.part]) as reached:
        headers = {"content-type": "application/cloudevents+json"}
        reply = await reached.client.post("/events/orders", content=json.dumps(EVENT), headers=headers)
    assert reply.json() == {"status": verdict.value}
    (message,) = inbox.got
    assert (message.id, message.source, message.topic, message.data) == ("m-1", "shop", "orders", {"n": 1})
    assert message.extensions == {"tenant": "a"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"id": 5, "source": "s", "type": "t"}', b'{"source": "s", "type": "t"}'],
)
async def test_a_message_that_cannot_be_understood_is_dropped_never_an_error(opening: Any, body: bytes) -> None:
    inbox = Inbox()
    async with opening(parts=[inbox.part]) as reached:
        reply = await reached.client.post("/events/orders", content=body)
    assert (reply.status_code, reply.json()) == (200, {"status": "DROP"})
    assert inbox.got == []


async def test_a_topic_that_nobody_asked_for_is_not_found(service: Any) -> None:
    reply = await service.client.post("/events/other", json=EVENT)
    assert (reply.status_code, reply.json()["code"]) == (404, "topic_unknown")


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b"", {}),
        (b'{"a": 1}', {"a": 1}),
        (b'{"@type": "type.googleapis.com/google.protobuf.Value", "value": {"a": 1}}', {"a": 1}),
    ],
)
async def test_a_tick_of_a_job_reaches_its_handler(opening: Any, body: bytes, data: Any) -> None:
    inbox = Inbox()
    async with opening(parts=[inbox.part]) as reached:
        assert (await reached.client.post("/job/tidy", content=body)).status_code == 200
    assert [message.data for message in inbox.got] == [data]


async def test_an_unknown_job_is_not_found(service: Any) -> None:
    reply = await service.client.post("/job/nobody")
    assert (reply.status_code, reply.json()["code"]) == (404, "job_unknown")


async def test_log_lines_of_a_request_name_caller_and_run(opening: Any) -> None:
    seen: list[dict[str, str]] = []
    router = APIRouter()

    @router.get("/turns/{turn}/look")
    async def look(turn: str) -> None:
        seen.append(dict(log_fields()))

    headers = {"dapr-caller-app-id": "shop", "dapr-api-token": "t"}
    async with opening(token="t", routers=[router]) as reached:
        turn = (await reached.client.post("/turns", json={"text": "hi"}, headers=headers)).json()["id"]
        await reached.client.get(f"/turns/{turn}/look", headers=headers)
    assert seen == [{"caller": "shop", "run": turn}]


async def test_a_session_with_an_open_turn_is_not_erased(bank: Any) -> None:
    asked = (await bank.client.post("/turns", json={"text": "pay", "session": "s"})).json()
    reply = await bank.client.delete("/sessions/s")
    assert (reply.status_code, reply.json()["code"]) == (409, "run_open")
    assert (await bank.client.get(f"/turns/{asked['id']}")).json()["status"] == "waiting"
