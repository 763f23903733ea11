"""Several turns of one session: keys, second messages, and what is kept."""

from __future__ import annotations

import orjson
import pytest

from perdure.agent.agent import DurableAgent
from perdure.clock import SystemIds
from perdure.errors import Busy, Conflict, Invalid, NotFound
from perdure.run.control import Control, fold_control
from perdure.run.event import CancelAsked, Closed, Steered
from perdure.run.plan import View
from perdure.tools import tool
from perdure.turn.accept import MAX_QUEUED, Ask, session_of
from perdure.turn.describe import session_json
from perdure.types import SubjectId
from turn_loop import Loop, asks, call, kinds

SUBJECT = SubjectId("a" * 26)


@tool(effect="read")
def look() -> str:
    return "seen"


def loop_of(*replies: object, **options: object) -> Loop:
    made = DurableAgent("a", tools=[look], **options)  # type: ignore[arg-type]
    return Loop.of(made, *replies)  # type: ignore[arg-type]


async def test_a_queued_message_runs_after_the_turn_in_progress() -> None:
    loop = loop_of("ok")
    first, second = loop.say("one"), loop.say("two")
    assert (loop.turn(first)["status"], loop.turn(second)["status"]) == ("running", "accepted")
    await loop.drive()
    assert (loop.turn(first)["status"], loop.turn(second)["status"]) == ("done", "done")
    assert [m.text for m in loop.view.state.messages] == ["one", "ok", "two", "ok"]


async def test_a_known_key_joins_its_turn_while_it_runs_and_afterwards() -> None:
    loop = loop_of("ok")
    run = loop.say("one", key="k")
    assert loop.say("one", key="k") == run
    await loop.drive()
    assert loop.say("one", key="k") == run
    assert kinds(loop.events).count("accepted") == 1


async def test_a_key_with_another_text_is_refused() -> None:
    loop = loop_of("ok")
    loop.say("one", key="k")
    with pytest.raises(Conflict) as refused:
        loop.say("two", key="k")
    assert refused.value.code == "key_reused"


async def test_the_policy_reject_refuses_a_second_message_but_not_a_known_key() -> None:
    loop = loop_of("ok", on_message="reject")
    run = loop.say("one", key="k")
    with pytest.raises(Conflict) as refused:
        loop.say("two")
    assert refused.value.code == "turn_running"
    assert loop.say("one", key="k") == run


async def test_a_steering_message_reaches_the_model_before_its_next_call() -> None:
    loop = loop_of(asks(call("look")), "ok", on_message="steer")
    run = loop.say("one")
    await loop.step()
    assert loop.say("in French", key="k") == run
    assert loop.say("in French", key="k") == run
    await loop.drive()
    assert [(m.role, m.text) for m in loop.asked[1].messages[-2:]] == [("tool", "seen"), ("user", "in French")]
    assert kinds(loop.events).count("steered") == 1


async def test_a_steering_message_that_arrives_during_the_last_call_is_answered_in_the_same_turn() -> None:
    loop = loop_of("ok", on_message="steer")
    run = loop.say("one")
    loop.say("and two")
    await loop.step()
    assert loop.turn(run)["status"] == "running"
    await loop.drive()
    assert [m.text for m in loop.view.state.messages] == ["one", "ok", "and two", "ok"]
    assert loop.turn(run)["steps"] == 2


async def test_a_steering_message_that_the_model_was_shown_stands_before_its_reply() -> None:
    loop = loop_of("ok", on_message="steer")
    loop.say("one")
    loop.say("and two")
    loop.claim()
    await loop.drive()
    assert [m.text for m in loop.view.state.messages] == ["one", "and two", "ok"]


async def test_an_interrupting_message_cancels_what_runs_and_begins_its_own_turn() -> None:
    loop = loop_of("ok", on_message="interrupt")
    first, second = loop.say("one"), loop.say("two")
    third = loop.say("three")
    loop.running.clear()
    loop.append([])
    await loop.drive()
    assert [loop.turn(n)["status"] for n in (first, second, third)] == ["cancelled", "cancelled", "done"]


def test_too_many_waiting_turns_are_refused() -> None:
    loop = loop_of("ok")
    for number in range(MAX_QUEUED + 1):
        loop.say(f"text {number}")
    with pytest.raises(Busy):
        loop.say("one more")


def test_a_session_comes_from_the_message_from_its_key_or_is_new() -> None:
    ids = SystemIds()
    assert session_of("a", "mine", "k", ids) == "mine"
    assert session_of("a", None, "k", ids) == session_of("a", None, "k", ids)
    assert session_of("a", None, "k", ids) != session_of("b", None, "k", ids)
    assert session_of("a", None, None, ids) != session_of("a", None, None, ids)
    for wrong in ("", "x" * 257, "a\nb"):
        with pytest.raises(Invalid):
            session_of("a", wrong, None, ids)


async def test_the_state_keeps_whole_exchanges_and_says_when_it_has_forgotten_a_turn() -> None:
    loop = loop_of(asks(call("look")), "ok", context_messages=9)
    runs = []
    for text in ("one", "two", "three"):
        runs.append(loop.say(text))
        await loop.drive()
    assert [m.text for m in loop.view.state.messages if m.role == "user"] == ["two", "three"]
    with pytest.raises(NotFound) as forgotten:
        loop.turn(runs[0])
    assert forgotten.value.code == "turn_forgotten"
    assert loop.turn(runs[1])["answer"] == "ok"


async def test_the_log_of_one_turn_is_enough_to_describe_it() -> None:
    loop = loop_of(asks(call("look")), "ok")
    loop.say("one")
    second = loop.say("two")
    await loop.drive()
    view = View(0, loop.kind.initial(), Control())
    state, control = view.state, view.control
    for at, event in loop.positioned:
        if at.n >= second:
            control = fold_control(control, event, at)
            state = loop.kind.fold(state, event, at)
    assert loop.kind.describe(state, control, second)["answer"] == "ok"


async def test_a_session_shows_all_turns_and_messages_of_its_log() -> None:
    loop = loop_of(asks(call("look")), "ok", context_messages=2)
    for text in [f"text {i}" for i in range(40)]:
        loop.say(text)
        await loop.drive()
    shown = session_json(SUBJECT, loop.positioned)
    assert shown["session"] == "s-1"
    assert [turn["status"] for turn in shown["turns"]] == ["done"] * 40  # type: ignore[union-attr,index,call-overload]
    assert shown["turns"][0]["answer"] == "ok"  # type: ignore[index,call-overload]
    first = shown["messages"][:4]  # type: ignore[index]
    assert [(m["role"], m["text"]) for m in first] == [  # type: ignore[index,call-overload,union-attr]
        ("user", "text 0"),
        ("assistant", ""),
        ("tool", "seen"),
        ("assistant", "ok"),
    ]


async def test_a_snapshot_holds_the_whole_state() -> None:
    loop = loop_of(asks(call("look")), "ok")
    loop.say("one")
    loop.say("two")
    while loop.running:
        assert loop.kind.load(loop.kind.dump(loop.view.state)) == loop.view.state
        await loop.step()
    assert isinstance(loop.events[-1], Closed)


async def test_events_survive_being_written_and_read() -> None:
    loop = loop_of(asks(call("look"), call("nothing")), "ok")
    loop.say("one", key="k")
    await loop.drive()
    assert loop.kind.codec.decode(orjson.loads(orjson.dumps(loop.events))) == tuple(loop.events)


async def test_a_queued_turn_that_is_steered_hears_it_from_the_start() -> None:
    loop = loop_of("ok")
    loop.say("one")
    second = loop.say("two")
    loop.append([Steered(second, "politely")])
    await loop.drive()
    assert loop.asked[1].messages[-1].text == "two\n\npolitely"


async def test_a_queued_turn_that_is_cancelled_ends_at_once_and_leaves_no_message() -> None:
    loop = loop_of("ok")
    first, second = loop.say("one"), loop.say("two")
    loop.append([CancelAsked(second, "never mind")])
    assert (loop.turn(first)["status"], loop.turn(second)["status"]) == ("running", "cancelled")
    await loop.drive()
    assert [m.text for m in loop.view.state.messages] == ["one", "ok"]


def test_the_digest_of_a_key_is_of_the_text_alone() -> None:
    assert Ask("turn/a", "x", "s", "k").digest == Ask("turn/a", "x", "other", "k", by="ann").digest
