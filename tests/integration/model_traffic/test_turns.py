"""Whole turns of a service, from HTTP to the model server and back, with everything that can go wrong between."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aimock import BROKEN_JSON, CUT, FIRST, SLOW, answer, calls, refusal
from raw_server import completion

if TYPE_CHECKING:
    from .conftest import Traffic

pytestmark = [
    pytest.mark.sidecar,
    pytest.mark.node,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]

AFTER_TOOLS = {"hasToolResult": True}


def error_of(turn: dict[str, Any]) -> tuple[str, str]:
    return turn["status"], turn["error"]["code"]


def valid(messages: list[dict[str, Any]]) -> bool:
    """Whether a provider takes these messages: each call has one result, after it and before anything else."""
    due: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            due.remove(message["tool_call_id"])
        elif due:
            return False
        due += [call["id"] for call in message.get("tool_calls") or ()]
    return not due


@pytest.mark.parametrize("agent", ["desk", "direct"])
async def test_tools_are_called_as_the_model_asks_and_it_sees_their_results(traffic: Traffic, agent: str) -> None:
    text = f"t-tools-{agent}"
    await traffic.server.script(
        answer(text, "Room Fram, number 17.", match={"toolResultContains": '"number":17'}),
        calls(text, ("book", {"room": "Fram", "nights": 2}), match=AFTER_TOOLS),
        calls(text, ("weather", {"city": "Oslo"}), ("weather", {"city": "Rome"})),
    )
    turn = await traffic.turn(agent, text)
    assert (turn["status"], turn["answer"], turn["steps"]) == ("done", "Room Fram, number 17.", 3)
    assert turn["usage"] == {"input_tokens": 5 + 5 + 11, "output_tokens": 3 + 3 + 7}
    asked = await traffic.server.asked(text)
    assert [len(each["messages"]) for each in asked] == [2, 5, 7]
    assert asked[0]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert [message["content"] for message in asked[1]["messages"][3:]] == ["Oslo: rain", "Rome: rain"]
    assert all(valid(each["messages"]) for each in asked)


async def test_the_next_turn_of_a_session_shows_the_model_what_was_said(traffic: Traffic) -> None:
    await traffic.server.script(
        answer("t-more", "As I said, rain."),
        answer("t-begin", "Rain.", match=AFTER_TOOLS),
        calls("t-begin", ("weather", {"city": "Oslo"})),
    )
    await traffic.turn("desk", "t-begin", session="t-two")
    second = await traffic.turn("desk", "t-more", session="t-two")
    assert second["answer"] == "As I said, rain."
    (asked,) = await traffic.server.asked("t-more")
    assert [each["role"] for each in asked["messages"]] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert valid(asked["messages"])


@pytest.mark.parametrize("agent", ["planner", "direct_planner"])
async def test_a_structured_answer_is_corrected_until_it_fits(traffic: Traffic, agent: str) -> None:
    journey = {"traveller": "Ada", "legs": [{"city": "Oslo", "nights": 2}], "note": None}
    text = f"t-journey-{agent}"
    await traffic.server.script(
        answer(text, '{"traveller": "Ada"}'), answer("Your answer does not fit: legs", json.dumps(journey), match=FIRST)
    )
    turn = await traffic.turn(agent, text)
    assert (turn["status"], turn["output"], turn["steps"]) == ("done", journey, 2)
    (asked,) = await traffic.server.asked(text)
    shape = asked["response_format"]["json_schema"]["schema"]
    assert set(shape["properties"]) == {"traveller", "legs", "note"}
    assert sorted(shape["required"]) == ["legs", "traveller"]


@pytest.mark.parametrize("agent", ["desk", "direct"])
@pytest.mark.parametrize("fault", ["429", "500", "json", "cut", "slow"])
async def test_a_fault_that_passes_is_not_noticed_by_the_user(traffic: Traffic, agent: str, fault: str) -> None:
    """One call fails, the second answers; the wait between is in the log."""
    text = f"t-passes-{agent}-{fault}"
    if fault.isdigit():
        first = refusal(text, int(fault), "not now", match=FIRST, retryAfter=0)
    else:
        first = answer(text, "never seen", match=FIRST, **{"json": BROKEN_JSON, "cut": CUT, "slow": SLOW}[fault])
    await traffic.server.script(first, answer(text, "here I am"))
    before = len(traffic.logged("model_call_repeated"))
    turn = await traffic.turn(agent, text)
    assert (turn["status"], turn["answer"], turn["steps"]) == ("done", "here I am", 1)
    (repeated,) = traffic.logged("model_call_repeated")[before:]
    assert repeated["attempt"] == 1
    assert repeated["code"] == ("model_rate_limited" if fault == "429" else "model_unavailable")
    assert 0.05 <= repeated["wait_s"] <= 0.1


@pytest.mark.parametrize("agent", ["desk", "direct"])
@pytest.mark.parametrize(
    ("fault", "code", "asked"),
    [
        ("400", "model_rejected", 1),
        ("401", "model_rejected", 1),
        ("429", "model_rate_limited", 3),
        ("503", "model_unavailable", 3),
        ("json", "model_unavailable", 3),
        ("cut", "model_unavailable", 3),
    ],
)
async def test_a_fault_that_stays_ends_the_turn_with_its_code(
    traffic: Traffic, agent: str, fault: str, code: str, asked: int
) -> None:
    """After a tool was called; the session goes on with a transcript that a model takes."""
    text, session = f"t-stays-{agent}-{fault}", f"s-stays-{agent}-{fault}"
    if fault.isdigit():
        bad = refusal(text, int(fault), "so says the provider", match=AFTER_TOOLS, retryAfter=0)
    else:
        bad = answer(text, "never seen", match=AFTER_TOOLS, **{"json": BROKEN_JSON, "cut": CUT}[fault])
    await traffic.server.script(
        bad, calls(text, ("weather", {"city": "Oslo"})), answer(f"again-{agent}-{fault}", "better now")
    )
    failures = len(traffic.logged("model_failed"))
    turn = await traffic.turn(agent, text, session=session)
    assert error_of(turn) == ("failed", code)
    if fault.isdigit():
        assert "so says the provider" in turn["error"]["message"]
    assert turn["usage"] == {"input_tokens": 5, "output_tokens": 3}
    assert len(await traffic.server.asked(text)) == 1 + asked
    assert len(traffic.logged("model_failed")) == failures + 1
    again = await traffic.turn(agent, f"again-{agent}-{fault}", session=session)
    assert again["answer"] == "better now"
    (shown,) = await traffic.server.asked(f"again-{agent}-{fault}")
    assert valid(shown["messages"])
    turns = (await traffic.session(agent, session))["turns"]
    assert [each["status"] for each in turns] == ["failed", "done"]


async def test_a_server_that_is_not_there_ends_the_turn_with_the_code(traffic: Traffic) -> None:
    turn = await traffic.turn("alone", "t-alone")
    assert error_of(turn) == ("failed", "model_unavailable")
    assert "'gone'" in turn["error"]["message"]


async def test_the_model_that_answered_in_the_place_of_another_is_recorded(traffic: Traffic) -> None:
    """In the turn's events, in the metrics and in the log."""
    await traffic.server.script(answer("t-chain", "from the second"))
    counted = 'perdure_model_calls_total{model="component:chat",outcome="ok"}'
    before = await traffic.metric(counted)
    turn = await traffic.turn("careful", "t-chain")
    assert (turn["status"], turn["answer"]) == ("done", "from the second")
    url = traffic.platform.app("assistant").url
    events = (await traffic.client.get(f"{url}/turns/{turn['id']}/events")).text
    shown = [json.loads(line.removeprefix("data: ")) for line in events.splitlines() if line.startswith("data: ")]
    assert [each["model"] for each in shown if each.get("t") == "model_replied"] == ["component:chat"]
    assert await traffic.metric(counted) == before + 1
    fell_back = traffic.logged("model_fell_back")[-1]
    assert (fell_back["model"], fell_back["code"]) == ("component:gone", "model_unavailable")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"city": "Os', "broken_json"),
        ("[1]", "not_an_object"),
        ('{"town": "Oslo"}', "wrong_arguments"),
        ('{"city": 7}', "wrong_arguments"),
    ],
)
async def test_arguments_that_cannot_be_used_are_told_to_the_model(
    traffic: Traffic, arguments: str, problem: str
) -> None:
    """The turn goes on, and what it shows the model next is valid."""
    asked = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    traffic.raw.answers[:] = [completion(tool_calls=[asked]), completion(content="sorry")]
    traffic.raw.requests.clear()
    turn = await traffic.turn("raw", "t-arguments")
    assert (turn["status"], turn["answer"], turn["steps"]) == ("done", "sorry", 2)
    told = traffic.raw.requests[1]["messages"]
    assert valid(told)
    assert json.loads(told[-1]["content"])["error"]["type"] == problem
    assert isinstance(json.loads(told[-2]["tool_calls"][0]["function"]["arguments"]), dict)


async def test_a_tool_that_does_not_exist_is_told_to_the_model(traffic: Traffic) -> None:
    await traffic.server.script(
        answer("t-unknown", "I see.", match=AFTER_TOOLS), calls("t-unknown", ("teleport", {"to": "Oslo"}))
    )
    turn = await traffic.turn("desk", "t-unknown")
    assert (turn["status"], turn["answer"]) == ("done", "I see.")
    told = (await traffic.server.asked("t-unknown"))[1]["messages"][-1]["content"]
    assert "teleport" in told
    assert "weather" in told


async def test_an_answer_cut_in_the_middle_is_asked_for_again(traffic: Traffic) -> None:
    whole = completion(content="the whole answer")
    traffic.raw.answers[:] = [whole[:-40], whole]
    assert (await traffic.turn("raw", "t-middle"))["answer"] == "the whole answer"
