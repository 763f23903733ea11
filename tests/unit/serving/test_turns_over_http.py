"""A turn over HTTP: asked, joined, followed, controlled, decided about."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import quote

from perdure.agent.agent import DurableAgent
from perdure.llm.model import ModelRequest


class Held:
    """A model that answers when it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, request: ModelRequest) -> str:
        await self.go.wait()
        return "at last"

    @property
    def agent(self) -> DurableAgent:
        return DurableAgent("slow", model=self)


async def test_a_turn_that_is_done_in_time_is_answered_with_200(service: Any) -> None:
    reply = await service.client.post("/turns", json={"text": "hi", "session": "s-1"})
    assert reply.status_code == 200
    turn = reply.json()
    assert turn["status"] == "done"
    assert turn["answer"] == "heard: hi"
    assert turn["session"] == "s-1"
    assert turn["steps"] == 1
    assert set(turn["usage"]) == {"input_tokens", "output_tokens"}
    assert (await service.client.get(f"/turns/{turn['id']}")).json() == turn


async def test_a_turn_that_takes_longer_is_accepted_with_its_location(opening: Any) -> None:
    held = Held()
    async with opening(held.agent) as reached:
        reply = await reached.client.post("/turns", json={"text": "hi", "wait_s": 0})
        assert reply.status_code == 202
        assert reply.json()["status"] in ("accepted", "running")
        where = reply.headers["location"]
        held.go.set()
        joined = await reached.client.post("/turns", json={"text": "hi", "session": reply.json()["session"]})
        assert joined.status_code == 200
        assert (await reached.client.get(where)).json()["answer"] == "at last"


async def test_the_header_is_the_same_as_the_key(service: Any) -> None:
    by_header = await service.client.post("/turns", json={"text": "hi"}, headers={"Idempotency-Key": "k"})
    both = await service.client.post("/turns", json={"text": "hi", "key": "k"}, headers={"Idempotency-Key": "k"})
    assert by_header.json()["id"] == both.json()["id"]


async def test_callers_with_one_key_at_once_share_one_turn(service: Any) -> None:
    asked = [service.client.post("/turns", json={"text": "hi", "key": "k"}) for _ in range(8)]
    replies = await asyncio.gather(*asked)
    assert len({reply.json()["id"] for reply in replies}) == 1


async def test_a_session_shows_all_turns_and_messages_until_it_is_erased(service: Any) -> None:
    for text in ("one", "two"):
        await service.client.post("/turns", json={"text": text, "session": "s"})
    shown = (await service.client.get("/sessions/s")).json()
    assert [turn["answer"] for turn in shown["turns"]] == ["heard: one", "heard: two"]
    said = [message["text"] for message in shown["messages"]]
    assert said == ["one", "heard: one", "two", "heard: two"]
    assert (await service.client.delete("/sessions/s")).status_code == 204
    assert (await service.client.get("/sessions/s")).status_code in (404, 410)


async def test_a_session_key_may_hold_any_printable_character(service: Any) -> None:
    key = "user/7?x=ä #1"
    await service.client.post("/turns", json={"text": "hi", "session": key})
    shown = (await service.client.get(f"/sessions/{quote(key, safe='')}")).json()
    assert (shown["session"], len(shown["turns"])) == (key, 1)


async def test_events_are_numbered_and_resume_where_the_reader_stopped(service: Any) -> None:
    turn = (await service.client.post("/turns", json={"text": "hi"})).json()["id"]
    whole = await service.client.get(f"/turns/{turn}/events")
    assert whole.headers["content-type"].startswith("text/event-stream")
    ids = re.findall(r"^id: (.*)$", whole.text, re.MULTILINE)
    kinds = re.findall(r"^event: (.*)$", whole.text, re.MULTILINE)
    assert kinds[0] == "accepted"
    assert kinds[-1] == "closed"
    assert len(set(ids)) == len(ids) == len(kinds)
    for stopped in range(len(ids)):
        rest = await service.client.get(f"/turns/{turn}/events", headers={"Last-Event-ID": ids[stopped]})
        assert re.findall(r"^id: (.*)$", rest.text, re.MULTILINE) == ids[stopped + 1 :]


async def test_events_of_a_running_turn_come_as_they_happen_with_comments_between(opening: Any) -> None:
    held = Held()
    async with opening(held.agent) as reached:
        turn = (await reached.client.post("/turns", json={"text": "hi", "wait_s": 0})).json()["id"]
        following = asyncio.create_task(reached.client.get(f"/turns/{turn}/events"))
        await asyncio.wait((following,), timeout=0.2)
        assert not following.done()
        held.go.set()
        stream = (await following).text
        assert ": ping" in stream
        assert stream.index(": ping") < stream.index("event: closed")


async def test_an_approval_covers_exactly_the_arguments_shown(bank: Any) -> None:
    asked = (await bank.client.post("/turns", json={"text": "pay"})).json()
    assert asked["status"] == "waiting"
    question = asked["waiting_for"][0]
    where = f"/turns/{asked['id']}/approvals/{question['call']}"
    wrong = await bank.client.post(where, json={"decision": "approve", "digest": "0" * 32})
    assert (wrong.status_code, wrong.json()["code"]) == (409, "approval_digest")
    without = await bank.client.post(where, json={"decision": "approve"})
    assert (without.status_code, without.json()["code"]) == (400, "request_invalid")
    yes = await bank.client.post(where, json={"decision": "approve", "digest": question["digest"]})
    assert yes.status_code == 200
    turn = await bank.runtime.turn(asked["id"])
    assert await turn.answer() == "sent 5"
    again = await bank.client.post(where, json={"decision": "approve", "digest": question["digest"]})
    assert again.status_code == 409


async def test_a_denied_call_does_not_run(bank: Any) -> None:
    asked = (await bank.client.post("/turns", json={"text": "pay"})).json()
    where = f"/turns/{asked['id']}/approvals/{asked['waiting_for'][0]['call']}"
    assert (await bank.client.post(where, json={"decision": "deny", "reason": "too much"})).status_code == 200
    turn = await bank.runtime.turn(asked["id"])
    assert "too much" in str(await turn.answer())


async def test_an_approval_nobody_asked_for_is_not_found(bank: Any) -> None:
    asked = (await bank.client.post("/turns", json={"text": "pay"})).json()
    reply = await bank.client.post(f"/turns/{asked['id']}/approvals/9.9.9", json={"decision": "deny"})
    assert (reply.status_code, reply.json()["code"]) == (404, "approval_unknown")


async def test_a_cancelled_turn_says_so_and_stays_so(bank: Any) -> None:
    asked = (await bank.client.post("/turns", json={"text": "pay"})).json()["id"]
    reply = await bank.client.post(f"/turns/{asked}/cancel", json={"reason": "changed my mind"})
    assert reply.status_code == 200
    turn = await bank.runtime.turn(asked)
    while turn.status != "cancelled":
        await bank.runtime.service.runner.wait(turn.id, 1.0, stop_on_wait=False)
        await turn.refresh()
    late = await bank.client.post(f"/turns/{asked}/pause")
    assert (late.status_code, late.json()["code"]) == (409, "run_closed")


async def test_a_paused_turn_goes_on_when_resumed(bank: Any) -> None:
    asked = (await bank.client.post("/turns", json={"text": "pay"})).json()
    paused = await bank.client.post(f"/turns/{asked['id']}/pause")
    assert paused.json()["status"] == "paused"
    where = f"/turns/{asked['id']}/approvals/{asked['waiting_for'][0]['call']}"
    await bank.client.post(where, json={"decision": "approve", "digest": asked["waiting_for"][0]["digest"]})
    await bank.client.post(f"/turns/{asked['id']}/resume")
    assert await (await bank.runtime.turn(asked["id"])).answer() == "sent 5"


async def test_runs_lists_what_is_open(bank: Any) -> None:
    asked = (await bank.client.post("/turns", json={"text": "pay"})).json()
    listed = (await bank.client.get("/runs")).json()["runs"]
    assert asked["id"] in [run["id"] for run in listed]
