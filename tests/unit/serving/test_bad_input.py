"""Bad input gets the right problem and changes nothing."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from perdure.serving.problem import TYPE_PREFIX

UNKNOWN_TURN = "abcdefghijklmnopqrstuvwxyz-1"


def assert_problem(reply: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The reply is a whole problem of that status and code; returns it."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = reply.json()
    assert body["code"] == code
    assert body["type"] == TYPE_PREFIX + code
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert len(body["trace_id"]) == 32
    return body


async def test_an_unknown_agent_is_named_beside_the_known_ones(service: Any) -> None:
    reply = await service.client.post("/turns", json={"agent": "wether", "text": "hi"})
    body = assert_problem(reply, 404, "agent_unknown")
    assert body["detail"] == "agent 'wether' is unknown; registered: weather"


async def test_a_service_with_several_agents_asks_for_a_name(opening: Any) -> None:
    from perdure.agent.agent import DurableAgent

    agents = [DurableAgent(name, model="scripted:hi") for name in ("b", "a")]
    async with opening(*agents) as reached:
        reply = await reached.client.post("/turns", json={"text": "hi"})
        assert assert_problem(reply, 400, "agent_missing")["detail"].endswith("a, b")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": 5}, "text"),
        ({"text": False}, "text"),
        ({"text": None}, "text"),
        ({"text": "x", "wait_s": False}, "wait_s"),
        ({"text": "x", "wait_s": "5"}, "wait_s"),
        ({"text": "x", "wait_s": -1}, "wait_s"),
        ({"text": "x", "wait_s": 1e9}, "wait_s"),
        ({"text": "x", "key": ""}, "key"),
        ({"text": "x", "key": 7}, "key"),
        ({"text": "x", "session": "y" * 300}, "session"),
        ({"text": "x", "sesion": "typo"}, "sesion"),
        (["text"], ""),
        ("text", ""),
    ],
)
async def test_a_wrong_field_is_named(service: Any, body: Any, field: str) -> None:
    reply = await service.client.post("/turns", json=body)
    problem = assert_problem(reply, 400, "request_invalid")
    assert field in [each["field"] for each in problem["fields"]]
    assert (await service.client.get("/runs")).json() == {"runs": []}


@pytest.mark.parametrize(
    "body",
    [b"{", b'{"text": "x"', b"\xff\xfe", b'{"text": "\xff"}', b"[" * 2000],
    ids=["open brace", "cut", "not UTF-8", "not UTF-8 inside", "deeply nested"],
)
async def test_malformed_json_is_refused(service: Any, body: bytes) -> None:
    reply = await service.client.post("/turns", content=body, headers={"content-type": "application/json"})
    assert_problem(reply, 400, "json_malformed")


async def test_a_text_that_is_not_unicode_is_refused(service: Any) -> None:
    body = b'{"text": "\\ud800"}'
    reply = await service.client.post("/turns", content=body, headers={"content-type": "application/json"})
    assert_problem(reply, 400, "request_invalid")


@pytest.mark.parametrize("body", [b'{"name": "n", "payload": {"x": NaN}}', b'{"name": "n", "payload": {"x": 1e999}}'])
async def test_a_payload_that_cannot_be_stored_is_refused(service: Any, body: bytes) -> None:
    turn = (await service.client.post("/turns", json={"text": "hi"})).json()["id"]
    headers = {"content-type": "application/json"}
    reply = await service.client.post(f"/turns/{turn}/signal", content=body, headers=headers)
    assert_problem(reply, 400, "request_invalid")


async def test_a_large_body_is_refused_by_its_declared_length(service: Any) -> None:
    reply = await service.client.post("/turns", json={"text": "x" * 5000})
    assert assert_problem(reply, 413, "body_too_large")["limit"] == 4096


async def test_a_large_body_without_a_length_is_refused_while_it_is_read(service: Any) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        yield b'{"text": "'
        for _ in range(40):
            sent += 1
            yield b"x" * 1_000_000

    reply = await service.client.post("/turns", content=endless(), headers={"content-type": "application/json"})
    assert_problem(reply, 413, "body_too_large")
    assert sent < 20


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/events", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/cancel", None),
        ("POST", "/signal", {"name": "n"}),
        ("POST", "/steer", {"text": "t"}),
        ("POST", "/approvals/1.1.0", {"decision": "approve", "digest": "d"}),
    ],
)
@pytest.mark.parametrize(
    ("turn", "status", "code"), [("nonsense", 400, "run_id_malformed"), (UNKNOWN_TURN, 404, "run_unknown")]
)
async def test_an_unknown_or_malformed_turn_id_is_refused_everywhere(
    service: Any, method: str, path: str, body: Any, turn: str, status: int, code: str
) -> None:
    reply = await service.client.request(method, f"/turns/{turn}{path}", json=body)
    assert_problem(reply, status, code)


async def test_a_number_that_is_no_turn_of_a_known_session_is_unknown(service: Any) -> None:
    turn = (await service.client.post("/turns", json={"text": "hi"})).json()["id"]
    assert_problem(await service.client.get(f"/turns/{turn.split('-')[0]}-77"), 404, "run_unknown")


async def test_a_key_that_stands_for_another_text_is_a_conflict(service: Any) -> None:
    first = await service.client.post("/turns", json={"text": "hi", "key": "k"})
    again = await service.client.post("/turns", json={"text": "hi", "key": "k"})
    other = await service.client.post("/turns", json={"text": "ho", "key": "k"})
    assert first.json() == again.json()
    assert_problem(other, 409, "key_reused")


async def test_two_different_keys_in_one_request_are_refused(service: Any) -> None:
    headers = {"Idempotency-Key": "a"}
    reply = await service.client.post("/turns", json={"text": "hi", "key": "b"}, headers=headers)
    assert_problem(reply, 400, "key_ambiguous")


async def test_unknown_paths_and_methods_are_problems_too(service: Any) -> None:
    assert_problem(await service.client.get("/nothing"), 404, "path_unknown")
    reply = await service.client.put("/turns", json={})
    assert_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"


async def test_an_unknown_session_is_not_found(service: Any) -> None:
    assert_problem(await service.client.get("/sessions/nobody"), 404, "session_unknown")
    assert_problem(await service.client.delete("/sessions/nobody"), 404, "session_unknown")


async def test_a_malformed_event_id_is_refused(service: Any) -> None:
    turn = (await service.client.post("/turns", json={"text": "hi"})).json()["id"]
    reply = await service.client.get(f"/turns/{turn}/events", headers={"Last-Event-ID": "yesterday"})
    assert_problem(reply, 400, "event_id_malformed")


async def test_what_nobody_foresaw_is_told_without_a_word_of_the_inside(opening: Any, caplog: Any) -> None:
    from fastapi import APIRouter

    router = APIRouter()

    @router.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password is swordfish")

    async with opening(routers=[router]) as reached:
        reply = await reached.client.get("/broken")
    body = assert_problem(reply, 500, "internal")
    assert "swordfish" not in json.dumps(body)
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 1


async def test_the_trace_id_of_a_problem_is_that_of_the_request(service: Any) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    reply = await service.client.get("/nothing", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert reply.json()["trace_id"] == trace
