"""Transcripts that every model accepts, and the window shown to it."""

from __future__ import annotations

import json

from perdure.conversation import Message, exchanges, newest, shown, valid
from perdure.sidecar.ports import ChatCall

CALL = ChatCall("c1", "look", "{}")


def user(run: int, text: str = "hi") -> Message:
    return Message("user", text, run=run)


def test_a_dangling_call_gets_a_typed_result_right_after_it() -> None:
    messages = [user(1), Message("assistant", calls=(CALL,), run=1), user(2)]
    fixed = valid(messages)
    assert [m.role for m in fixed] == ["user", "assistant", "tool", "user"]
    assert (fixed[2].call_id, json.loads(fixed[2].text)["error"]["type"]) == ("c1", "not_run")
    assert valid(fixed) == fixed


def test_a_result_without_a_call_or_given_twice_is_left_out() -> None:
    result = Message("tool", "seen", call_id="c1", name="look", run=1)
    messages = [result, user(1), Message("assistant", calls=(CALL,), run=1), result, result]
    assert [m.role for m in valid(messages)] == ["user", "assistant", "tool"]


def test_the_window_holds_whole_exchanges_and_always_the_newest() -> None:
    turn = [user(2), Message("assistant", calls=(CALL,), run=2), Message("tool", call_id="c1", run=2)]
    messages = [user(1), Message("assistant", "yes", run=1), *turn]
    assert newest(messages, 4) == tuple(turn)
    assert newest(messages, 1) == tuple(turn)
    assert newest(messages, 5) == tuple(messages)
    assert newest(messages, None) == tuple(messages)
    assert [len(group) for group in exchanges(messages)] == [2, 3]


def test_the_model_is_shown_instructions_first() -> None:
    assert [m.role for m in shown([user(1)], 10, "Be brief.")] == ["system", "user"]
    assert [m.role for m in shown([user(1)], 10)] == ["user"]


def test_people_are_shown_a_message_without_what_it_does_not_have() -> None:
    assert user(1).for_people() == {"role": "user", "text": "hi", "at": ""}
    calling = Message("assistant", calls=(CALL,)).for_people()
    assert calling["calls"] == [{"id": "c1", "name": "look", "arguments": "{}"}]
