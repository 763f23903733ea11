"""Laws of turns: over any order of arrival, any cut, any takeover."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.agent.agent import DurableAgent
from perdure.conversation import exchanges, valid
from perdure.run.control import Control
from perdure.run.event import (
    ApprovalAsked,
    Approved,
    CancelAsked,
    Closed,
    Denied,
    Reserved,
    Settled,
    Steered,
    TimerFired,
)
from perdure.run.kind import Act
from perdure.run.plan import View, fold_view
from perdure.sidecar.ports import ChatReply
from perdure.tools import EndTurn, tool
from turn_loop import Loop, asks, call


@tool(effect="read")
def look(at: int) -> str:
    return "seen"


@tool(effect="idempotent")
def put(at: int) -> str:
    if at == 2:
        raise ValueError("no")
    return "put"


@tool
def pay(at: int) -> str:
    if at == 2:
        raise EndTurn("no money")
    return "paid"


@tool(approval=True)
def sign(at: int) -> str:
    return "signed"


@tool(doubt="ask")
def send(at: int) -> str:
    return "sent"


CALLS = st.builds(
    call,
    st.sampled_from(["look", "put", "pay", "sign", "send", "gone"]),
    st.sampled_from(['{"at": 0}', '{"at": 1}', '{"at": 2}', '{"at": "x"}', "{"]),
    st.sampled_from(["", "same", "x"]),
)
REPLIES = st.lists(
    st.one_of(st.just(ChatReply("fine")), st.lists(CALLS, min_size=1, max_size=3).map(lambda calls: asks(*calls))),
    min_size=1,
    max_size=4,
)
MOVES = st.lists(
    st.sampled_from(
        ["step", "last", "step", "last", "say", "steer", "cancel", "drop", "crash", "approve", "deny", "expire"]
    ),
    max_size=25,
)


def a_loop(replies: list[ChatReply]) -> Loop:
    made = DurableAgent("a", tools=[look, put, pay, sign, send], max_steps=4, context_messages=12)
    return Loop.of(made, *replies)


async def played(replies: list[ChatReply], moves: list[str]) -> Loop:
    """A session that has lived through `moves`."""
    loop = a_loop(replies)
    loop.say("begin")
    for move in moves:
        await play(loop, move)
    return loop


async def play(loop: Loop, move: str) -> None:
    current = loop.view.control.current
    if move in ("step", "last"):
        if loop.running:
            if move == "last":
                loop.running.insert(0, loop.running.pop())
            await loop.step()
    elif move == "say":
        loop.say(f"text {len(loop.commits)}")
    elif move == "crash":
        if current is not None:
            loop.claim()
    elif current is not None:
        facts = told(loop, move, current.n)
        if facts:
            loop.append(facts) if loop.running else loop.claim(facts)
        if move == "cancel":  # the driver lets what runs come to its end, then plans
            loop.running.clear()
            loop.append([])


def told(loop: Loop, move: str, run: int) -> list[Any]:
    if move == "steer":
        return [Steered(run, "listen")]
    if move == "cancel":
        return [CancelAsked(run, "enough")]
    if move == "drop":
        newest = max(loop.view.control.open)
        return [CancelAsked(newest, "never mind")] if newest != run else []
    asked = [a for a in loop.view.control.approvals.values() if a.status == "asked"]
    if not asked:
        return []
    first = asked[0]
    return {
        "approve": [Approved(first.call, first.digest, "ann")],
        "deny": [Denied(first.call, "ann")],
        "expire": [TimerFired(f"approval:{first.call}")],
    }[move]


def refolded(loop: Loop, cut: int) -> View[Any]:
    view: View[Any] = View(0, loop.kind.initial(), Control())
    for at, events in loop.commits[:cut]:
        view = fold_view(loop.kind, view, events, at)
    state = loop.kind.load(loop.kind.dump(view.state))
    view = View(view.n, state, view.control)
    for at, events in loop.commits[cut:]:
        view = fold_view(loop.kind, view, events, at)
    return view


@settings(deadline=None, max_examples=60)
@given(REPLIES, MOVES, st.data())
def test_folding_a_prefix_and_then_the_rest_equals_folding_all(
    replies: list[ChatReply], moves: list[str], data: st.DataObject
) -> None:
    """Also when the prefix was a snapshot that was written and read."""
    loop = asyncio.run(played(replies, moves))
    cut = data.draw(st.integers(0, len(loop.commits)))
    assert refolded(loop, cut).state == loop.view.state


@settings(deadline=None, max_examples=60)
@given(REPLIES, MOVES)
def test_every_transcript_is_valid_at_every_moment_that_a_model_is_asked(
    replies: list[ChatReply], moves: list[str]
) -> None:
    """Each call is answered right after it was made, each result answers a call, arguments are JSON objects."""
    loop = asyncio.run(played(replies, moves))
    for request in loop.asked:
        open_calls: set[str] = set()
        for message in request.messages:
            if message.role == "tool":
                open_calls.remove(message.call_id)
            else:
                assert not open_calls
                open_calls = {each.id for each in message.calls}
                assert len(open_calls) == len(message.calls)
                assert all(isinstance(json.loads(each.arguments), dict) for each in message.calls)
        assert not open_calls
    if loop.view.state.turn is None:
        assert valid(loop.view.state.messages) == loop.view.state.messages


@settings(deadline=None, max_examples=60)
@given(REPLIES, MOVES)
def test_after_a_takeover_no_settled_effect_is_wanted_again(replies: list[ChatReply], moves: list[str]) -> None:
    """At every prefix of the log, what a new driver decides contains nothing that has an outcome."""
    loop = asyncio.run(played(replies, moves))
    view: View[Any] = View(0, loop.kind.initial(), Control())
    settled: set[str] = set()
    for at, events in loop.commits:
        view = fold_view(loop.kind, view, events, at)
        settled |= {event.key for event in events if isinstance(event, Settled)}
        verdict = loop.kind.decide(view.state, view.control)
        if isinstance(verdict, Act):
            assert settled.isdisjoint(action.key for action in verdict.actions)


@settings(deadline=None, max_examples=60)
@given(REPLIES, MOVES)
def test_a_once_effect_is_reserved_once_unless_a_person_allowed_another_attempt(
    replies: list[ChatReply], moves: list[str]
) -> None:
    """Each further reservation of the same key follows an approval of it."""
    loop = asyncio.run(played(replies, moves))
    allowed: dict[str, int] = {}
    started: set[str] = set()
    for event in loop.events:
        if isinstance(event, Approved):
            allowed[event.call] = allowed.get(event.call, 0) + 1
        if isinstance(event, Reserved) and event.effect == "once":
            if event.key in started:
                assert allowed.get(event.key, 0) > 0
                allowed[event.key] -= 1
            started.add(event.key)


@settings(deadline=None, max_examples=60)
@given(REPLIES, MOVES)
def test_every_accepted_turn_ends_or_visibly_waits(replies: list[ChatReply], moves: list[str]) -> None:
    """Driven on after anything that happened, nothing is left running; what is open waits for a person."""

    async def settle() -> Loop:
        loop = await played(replies, moves)
        if loop.view.control.current is not None:
            loop.claim()
        await loop.drive()
        return loop

    loop = asyncio.run(settle())
    current = loop.view.control.current
    if current is not None:
        assert loop.turn(current.n)["status"] == "waiting"
        assert loop.turn(current.n)["waiting_for"]
        assert any(isinstance(event, ApprovalAsked) for event in loop.events)
    closed = [event.run for event in loop.events if isinstance(event, Closed)]
    assert len(closed) == len(set(closed))


@settings(deadline=None, max_examples=40)
@given(REPLIES, st.integers(1, 12), st.integers(1, 20))
def test_what_is_kept_of_a_session_is_bounded_by_whole_exchanges(
    replies: list[ChatReply], turns: int, limit: int
) -> None:
    """At most `limit` messages beside the newest exchange, which is never cut."""

    async def talk() -> Loop:
        made = DurableAgent("a", tools=[look, put, pay, send], max_steps=4, context_messages=limit)
        loop = Loop.of(made, *replies)
        for number in range(turns):
            loop.say(f"text {number}")
            await loop.drive()
        return loop

    messages = asyncio.run(talk()).view.state.messages
    groups = exchanges(messages)
    assert len(messages) <= max(limit, len(groups[-1]) if groups else 0)
    assert all(group[0].role == "user" for group in groups)
