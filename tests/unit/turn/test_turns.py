"""One turn, from the user's text to its end."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import orjson
import pytest
from pydantic import BaseModel, field_validator

from perdure.agent.agent import DurableAgent
from perdure.errors import Failed, Transient
from perdure.llm.function import FunctionModel
from perdure.llm.model import ModelRequest
from perdure.llm.usage import Price, PriceTable
from perdure.run.event import Approved, CancelAsked, Closed, Denied, Doubted, Settled, TimerFired
from perdure.sidecar.ports import ChatReply
from perdure.tools import EndTurn, ToolContext, tool
from turn_loop import LATER, Loop, Recorded, asks, call, kinds


@tool(effect="read")
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


@tool(effect="idempotent")
def book(room: str, context: ToolContext) -> dict[str, str]:
    """Book a room."""
    return {"room": room, "key": context.key}


@tool
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def agent(**options: object) -> DurableAgent:
    return DurableAgent("a", **{"tools": [weather, book, pay], **options})  # type: ignore[arg-type]


async def test_an_answer_without_tools_takes_two_commits() -> None:
    loop = Loop.of(agent(instructions="Be brief."), ChatReply("Hello!", input_tokens=7, output_tokens=2))
    run = loop.say("Hi")
    await loop.drive()
    assert [kinds(events) for _, events in loop.commits] == [["accepted", "claimed"], ["model_replied", "closed"]]
    assert loop.turn(run) == {
        "session": "s-1",
        "status": "done",
        "answer": "Hello!",
        "usage": {"input_tokens": 7, "output_tokens": 2},
        "steps": 1,
    }
    assert [(m.role, m.text) for m in loop.asked[0].messages] == [("system", "Be brief."), ("user", "Hi")]


async def test_a_turn_with_two_tools_is_exactly_five_commits() -> None:
    loop = Loop.of(agent(), asks(call("pay", '{"amount": 1}'), call("book", '{"room": "7"}')), "Done.")
    run = loop.say("Pay and book")
    await loop.drive()
    assert [kinds(events) for _, events in loop.commits] == [
        ["accepted", "claimed"],
        ["model_replied", "reserved", "reserved"],
        ["settled"],
        ["settled"],
        ["model_replied", "closed"],
    ]
    assert loop.turn(run)["answer"] == "Done."
    assert loop.done == ["1.1.0", "1.2.1", "1.2.2", "1.4.0"]


async def test_a_turn_with_texts_of_a_kilobyte_writes_no_text_twice() -> None:
    text, answer = "q" * 1024, "a" * 1024
    loop = Loop.of(agent(), asks(call("pay", '{"amount": 1}'), call("book", '{"room": "7"}')), answer)
    loop.say(text)
    await loop.drive()
    written = orjson.dumps(loop.events)
    assert written.count(text.encode()) == 1
    assert written.count(answer.encode()) == 1
    assert len(written) < 4096


async def test_the_model_sees_results_in_the_order_of_its_calls() -> None:
    loop = Loop.of(agent(), asks(call("weather", '{"city": "Oslo"}', "x"), call("pay", '{"amount": 1}', "y")), "ok")
    loop.say("go")
    await loop.step()
    loop.running.reverse()
    await loop.drive()
    shown = [(m.role, m.call_id, m.text) for m in loop.asked[1].messages[2:]]
    assert shown == [("tool", "x", "rain in Oslo"), ("tool", "y", "paid 1")]


async def test_read_tools_are_not_reserved() -> None:
    loop = Loop.of(agent(), asks(call("weather", '{"city": "Oslo"}')), "ok")
    loop.say("go")
    await loop.drive()
    assert "reserved" not in kinds(loop.events)


async def test_calls_with_the_same_or_no_id_get_ids_of_their_own() -> None:
    loop = Loop.of(agent(), asks(*[call("pay", '{"amount": 1}', "same")] * 2, call("pay", '{"amount": 2}')), "ok")
    loop.say("go")
    await loop.drive()
    messages = loop.asked[1].messages
    ids = [c.id for c in messages[1].calls]
    assert len(set(ids)) == 3
    assert [m.call_id for m in messages[2:]] == ids


async def test_wrong_arguments_and_unknown_tools_are_told_to_the_model_without_any_effect() -> None:
    wrong = asks(call("pay", '{"amount": "much"}'), call("pai", "{}"), call("pay", "{"))
    loop = Loop.of(agent(), wrong, "Sorry.")
    run = loop.say("go")
    await loop.drive()
    assert kinds(loop.commits[1][1]) == ["model_replied", "call_invalid", "call_invalid", "call_invalid"]
    told = [json.loads(m.text)["error"]["type"] for m in loop.asked[1].messages if m.role == "tool"]
    assert told == ["wrong_arguments", "unknown_tool", "broken_json"]
    assert all(isinstance(json.loads(c.arguments), dict) for c in loop.asked[1].messages[1].calls)
    assert loop.turn(run)["status"] == "done"


async def test_a_tool_that_raises_is_a_result_the_model_sees() -> None:
    @tool
    def broken() -> str:
        raise ValueError("no such row")

    loop = Loop.of(agent(tools=[broken]), asks(call("broken")), "It failed.")
    run = loop.say("go")
    await loop.drive()
    assert "no such row" in json.loads(loop.asked[1].messages[-1].text)["error"]["message"]
    assert loop.turn(run)["answer"] == "It failed."


async def test_end_turn_fails_the_turn_after_its_neighbours_have_settled() -> None:
    @tool(effect="read")
    def stop() -> str:
        raise EndTurn("out of stock", code="sold_out")

    loop = Loop.of(agent(tools=[stop, pay]), asks(call("stop"), call("pay", '{"amount": 1}')))
    run = loop.say("go")
    await loop.step()
    await loop.step()
    assert loop.turn(run)["status"] == "running"
    await loop.drive()
    assert loop.turn(run)["status"] == "failed"
    assert loop.turn(run)["error"] == {"code": "sold_out", "message": "out of stock"}
    assert Settled("1.2.2", "paid 1") in loop.events


async def test_a_timed_out_once_tool_is_in_doubt_and_told_as_unknown() -> None:
    @tool(timeout_s=0.01)
    async def slow() -> str:
        await asyncio.Event().wait()
        return ""

    loop = Loop.of(agent(tools=[slow]), asks(call("slow")), "I do not know.")
    loop.say("go")
    await loop.drive()
    assert Doubted("1.2.1", "time limit") in loop.events
    assert json.loads(loop.asked[1].messages[-1].text)["error"]["type"] == "outcome_unknown"


async def test_a_timed_out_idempotent_tool_is_a_plain_error() -> None:
    @tool(timeout_s=0.01, effect="idempotent")
    async def slow() -> str:
        await asyncio.Event().wait()
        return ""

    loop = Loop.of(agent(tools=[slow]), asks(call("slow")), "Later.")
    loop.say("go")
    await loop.drive()
    assert "doubted" not in kinds(loop.events)
    assert json.loads(loop.asked[1].messages[-1].text)["error"]["type"] == "failed"


async def test_the_step_limit_fails_the_turn_without_starting_calls_that_no_model_will_see() -> None:
    loop = Loop.of(agent(max_steps=1), asks(call("pay", '{"amount": 1}'), text="Paying now."))
    run = loop.say("go")
    await loop.drive()
    turn = loop.turn(run)
    assert turn["status"] == "failed"
    assert turn["error"]["code"] == "step_limit"  # type: ignore[index,call-overload]
    assert (turn["answer"], turn["steps"]) == ("Paying now.", 1)
    assert "reserved" not in kinds(loop.events)
    assert json.loads(loop.view.state.messages[-1].text)["error"]["type"] == "not_run"


async def test_token_and_cost_limits_fail_the_turn() -> None:
    prices = PriceTable({"scripted": Price(Decimal(1), Decimal(1))})
    for options in ({"max_tokens": 15}, {"max_cost": 0.000001, "prices": prices}):
        loop = Loop.of(agent(**options), asks(call("weather", '{"city": "Oslo"}')), "never")
        run = loop.say("go")
        await loop.drive()
        assert loop.turn(run)["error"]["code"] == "cost_limit"  # type: ignore[index,call-overload]


async def test_a_model_that_refuses_fails_the_turn_with_its_code() -> None:
    def refuse(request: ModelRequest) -> str:
        raise Failed("model_rejected", "too long")

    loop = Loop(agent(), Recorded(FunctionModel(refuse)))
    run = loop.say("go")
    await loop.drive()
    assert kinds(loop.commits[1][1]) == ["turn_failed", "closed"]
    assert loop.turn(run)["error"] == {"code": "model_rejected", "message": "too long"}


async def test_a_model_that_stays_away_fails_the_turn_unless_the_agent_waits() -> None:
    def away(request: ModelRequest) -> str:
        raise Transient("model_unavailable", "gone")

    loop = Loop(agent(), Recorded(FunctionModel(away)))
    run = loop.say("go")
    await loop.drive()
    assert loop.turn(run)["status"] == "failed"

    patient = Loop(agent(wait_for_model=True), Recorded(FunctionModel(away)))
    patient.say("go")
    with pytest.raises(Transient, match="gone"):
        await patient.step()


class City(BaseModel):
    name: str
    people: int


async def test_an_answer_that_does_not_fit_is_told_to_the_model_and_counts_as_a_step() -> None:
    answers = ['{"name": "Oslo"}', '{"name": "Oslo", "people": 700000}']

    def model(request: ModelRequest) -> str:
        assert request.response_schema is not None
        return answers[sum(m.role == "assistant" for m in request.messages)]

    loop = Loop(agent(output_type=City), Recorded(FunctionModel(model)))
    run = loop.say("Oslo?")
    await loop.drive()
    assert loop.turn(run)["output"] == {"name": "Oslo", "people": 700000}
    assert loop.turn(run)["steps"] == 2
    assert "people" in loop.asked[1].messages[-1].text


class Hill(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def listed(cls, name: str) -> str:
        return {"Fløyen": name}[name]


async def test_an_answer_on_which_the_authors_validator_raises_is_told_to_the_model() -> None:
    answers = ['{"name": "Ulriken"}', '{"name": "Fløyen"}']

    def model(request: ModelRequest) -> str:
        return answers[sum(m.role == "assistant" for m in request.messages)]

    loop = Loop(agent(output_type=Hill), Recorded(FunctionModel(model)))
    run = loop.say("a hill?")
    await loop.drive()
    assert loop.turn(run)["output"] == {"name": "Fløyen"}
    assert "KeyError: 'Ulriken'" in loop.asked[1].messages[-1].text


@pytest.mark.parametrize("depth", [201, 900, 200_000])
async def test_arguments_nested_too_deeply_are_told_to_the_model_as_broken(depth: int) -> None:
    nested = '{"amount": ' + "[" * depth + "]" * depth + "}"
    loop = Loop.of(agent(), asks(call("pay", nested)), "Sorry.")
    run = loop.say("go")
    await loop.drive()
    assert loop.turn(run)["status"] == "done"
    assistant, told = loop.asked[1].messages[-2:]
    assert json.loads(told.text)["error"]["type"] == "broken_json"
    assert list(json.loads(assistant.calls[0].arguments)) == ["not_an_object"]


async def test_a_tool_that_needs_approval_waits_and_shows_what_is_asked() -> None:
    careful = tool(approval=lambda values: values["amount"] > 10)(pay.function)
    loop = Loop.of(agent(tools=[careful]), asks(call("pay", '{"amount": 100}')), "ok")
    run = loop.say("go")
    await loop.drive()
    turn = loop.turn(run)
    assert turn["status"] == "waiting"
    [question] = turn["waiting_for"]  # type: ignore[misc]
    assert question == {
        "kind": "approval",
        "call": "1.2.1",
        "tool": "pay",
        "arguments": {"amount": 100},
        "digest": question["digest"],  # type: ignore[index,call-overload]
        "until": LATER,
        "why": "tool",
    }
    loop.claim([Approved("1.2.1", question["digest"], "ann")])  # type: ignore[index,call-overload,arg-type]
    await loop.drive()
    assert loop.turn(run)["status"] == "done"
    assert loop.asked[1].messages[-1].text == "paid 100"


async def test_a_denied_or_expired_call_is_told_to_the_model() -> None:
    careful = tool(approval=True)(pay.function)
    for answer in (Denied("1.2.1", "ann", "too much"), TimerFired("approval:1.2.1")):
        loop = Loop.of(agent(tools=[careful]), asks(call("pay", '{"amount": 1}')), "ok")
        run = loop.say("go")
        await loop.drive()
        loop.claim([answer])
        await loop.drive()
        assert loop.turn(run)["status"] == "done"
        assert json.loads(loop.asked[1].messages[-1].text)["error"]["type"] == "failed"
        assert "reserved" not in kinds(loop.events)


async def test_a_call_cut_by_a_crash_is_told_as_unknown_and_the_same_call_again_is_put_to_a_person() -> None:
    again = asks(call("pay", '{"amount":1}'))
    loop = Loop.of(agent(), again, again, "ok")
    run = loop.say("go")
    await loop.step()
    loop.claim()
    assert (loop.events[-1].t, loop.events[-1].unknown) == ("settled", True)
    await loop.step()
    assert loop.turn(run)["status"] == "waiting"
    [question] = loop.turn(run)["waiting_for"]  # type: ignore[misc]
    loop.claim([Approved(question["call"], question["digest"], "ann")])  # type: ignore[index,call-overload,arg-type]
    await loop.drive()
    assert loop.turn(run)["status"] == "done"
    assert loop.view.state.uncertain == ()


async def test_a_takeover_reserves_each_call_once_whatever_becomes_of_its_neighbours() -> None:
    retried = tool(doubt="retry", name="retried")(pay.function)
    calls = [call(name, '{"amount": 1}') for name in ("retried", "pay")]
    loop = Loop.of(agent(tools=[retried, pay]), asks(*calls, call("pay", '{"amount": 2}')), "ok")
    loop.say("go")
    await loop.step()
    loop.claim()
    assert kinds(loop.commits[-1][1]).count("reserved") == 1
    [start] = loop.running
    assert (start.action.key, start.attempt, start.after_other) == ("1.2.1", 2, True)


async def test_a_pending_call_to_a_tool_that_is_gone_gets_a_typed_failure() -> None:
    careful = tool(approval=True)(pay.function)
    old = Loop.of(agent(tools=[careful]), asks(call("pay", '{"amount": 1}')))
    run = old.say("go")
    await old.drive()
    new = Loop.of(agent(tools=[weather]), "never", "ok")
    new.view, new.commits, new.epoch = old.view, old.commits, old.epoch
    new.claim()
    await new.drive()
    assert json.loads(new.asked[0].messages[-1].text)["error"]["type"] == "unknown_tool"
    assert new.turn(run)["status"] == "done"


async def test_a_begun_call_to_a_tool_that_is_gone_is_unknown() -> None:
    old = Loop.of(agent(), asks(call("pay", '{"amount": 1}')))
    old.say("go")
    await old.step()
    new = Loop.of(agent(tools=[weather]), "never", "ok")
    new.view, new.commits, new.epoch = old.view, old.commits, old.epoch
    new.claim()
    await new.drive()
    assert json.loads(new.asked[0].messages[-1].text)["error"]["type"] == "outcome_unknown"
    assert new.view.control.open == {}


async def test_a_cancelled_turn_leaves_a_transcript_that_the_next_turn_can_use() -> None:
    loop = Loop.of(agent(), asks(call("pay", '{"amount": 1}'), call("weather", '{"city": "Oslo"}')), "Hello again.")
    run = loop.say("go")
    await loop.step()
    loop.append([CancelAsked(run, "changed my mind")])
    assert loop.last.wanted == frozenset()
    loop.running.clear()
    loop.append([Doubted("1.2.1", "cancelled")])
    turn = loop.turn(run)
    assert turn["status"] == "cancelled"
    assert turn["error"] == {"code": "cancelled", "message": "changed my mind"}
    types = [json.loads(m.text)["error"]["type"] for m in loop.view.state.messages if m.role == "tool"]
    assert types == ["outcome_unknown", "not_run"]


async def test_a_run_closed_from_outside_is_described() -> None:
    loop = Loop.of(agent())
    run = loop.say("go")
    loop.running.clear()
    loop.append([Closed(run, "failed", {"error": {"code": "poison", "message": "m"}})])
    assert loop.turn(run)["status"] == "failed"
    assert loop.turn(run)["steps"] == 0


async def test_the_first_outcome_of_a_call_stands() -> None:
    loop = Loop.of(agent(), asks(call("pay", '{"amount": 1}'), call("pay", '{"amount": 2}')), "ok")
    loop.say("go")
    await loop.step()
    await loop.step()
    loop.append([Settled("1.2.1", "paid twice")])
    await loop.drive()
    assert [m.text for m in loop.asked[1].messages if m.role == "tool"] == ["paid 1", "paid 2"]


async def test_half_a_character_in_a_reply_is_no_obstacle() -> None:
    loop = Loop.of(agent(), asks(call("pay", '{"amount": "\ud83d"}')), "cut \ud83d")
    run = loop.say("go")
    await loop.drive()
    assert loop.turn(run)["answer"] == "cut ?"
    assert orjson.dumps(loop.events)
