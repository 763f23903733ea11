"""When a model call is repeated, and when another model is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from perdure.errors import Failed, Invalid, NotFound, PerdureError, Transient
from perdure.llm import FallbackModel, ModelRequest, RetryingModel, RetryPolicy, ScriptedModel
from perdure.sidecar.ports import ChatMessage, ChatReply
from perdure.testing.clock import FakeClock

REQUEST = ModelRequest((ChatMessage("user", "q"),))
LIMITED = Transient("model_rate_limited", "slow down")
AWAY = Transient("model_unavailable", "500")
REJECTED = Failed("model_rejected", "400")


class FlakyModel:
    """Raises the given failures one after the other, saying half a word before each; then answers."""

    def __init__(self, failures: Sequence[PerdureError], name: str = "flaky") -> None:
        self.failures = list(failures)
        self.name = name
        self.calls = 0

    async def reply(self, request: ModelRequest) -> ChatReply:
        self.calls += 1
        if request.on_text is not None:
            request.on_text("hel")
        if self.failures:
            raise self.failures.pop(0)
        return ChatReply("hello", model="m-1")


def retrying(model: FlakyModel, clock: FakeClock, policy: RetryPolicy | None = None) -> RetryingModel:
    return RetryingModel(model, policy, clock=clock, chance=lambda: 1.0)


@pytest.mark.parametrize("failure", [LIMITED, AWAY])
async def test_a_transient_failure_is_repeated_after_a_growing_wait(failure: Transient) -> None:
    clock, model = FakeClock(), FlakyModel([failure, failure])
    reply = asyncio.create_task(retrying(model, clock).reply(REQUEST))
    seen = []
    for seconds in (0.49, 0.02, 0.98, 0.02):
        await clock.advance(seconds)
        seen.append(model.calls)
    assert seen == [1, 2, 2, 3]
    assert (await reply).text == "hello"


@pytest.mark.parametrize("failure", [REJECTED, NotFound("component_unknown", "no such component")])
async def test_what_will_fail_again_is_told_at_once(failure: PerdureError) -> None:
    model = FlakyModel([failure])
    with pytest.raises(type(failure)):
        await retrying(model, FakeClock()).reply(REQUEST)
    assert model.calls == 1


async def test_attempts_are_bounded_and_the_last_failure_is_told() -> None:
    clock, model = FakeClock(), FlakyModel([AWAY, AWAY, LIMITED])
    reply = asyncio.create_task(retrying(model, clock, RetryPolicy(max_attempts=3)).reply(REQUEST))
    await clock.advance(60)
    with pytest.raises(Transient, match="slow down"):
        await reply
    assert model.calls == 3


async def test_the_wait_a_provider_asks_for_is_not_undercut() -> None:
    clock, model = FakeClock(), FlakyModel([Transient("model_rate_limited", "later", retry_after_s=7)])
    reply = asyncio.create_task(retrying(model, clock).reply(REQUEST))
    await clock.advance(6.9)
    assert model.calls == 1
    await clock.advance(0.2)
    assert (await reply).text == "hello"


async def test_a_wait_longer_than_the_whole_time_is_not_begun() -> None:
    model = FlakyModel([Transient("model_rate_limited", "tomorrow", retry_after_s=86400)])
    with pytest.raises(Transient, match="tomorrow"):
        await retrying(model, FakeClock(), RetryPolicy(total_s=60)).reply(REQUEST)


def test_waits_spread_over_half_their_length_and_end_somewhere() -> None:
    policy = RetryPolicy(first_wait_s=1, max_wait_s=8)
    assert [policy.wait_s(attempt, AWAY, 1.0) for attempt in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, 8]
    assert policy.wait_s(2, AWAY, 0.0) == 1


async def test_listeners_learn_that_what_they_heard_is_void() -> None:
    clock, heard = FakeClock(), list[str]()
    request = ModelRequest(REQUEST.messages, on_text=heard.append, on_restart=lambda: heard.append("|"))
    reply = asyncio.create_task(retrying(FlakyModel([AWAY]), clock).reply(request))
    await clock.advance(1)
    await reply
    assert heard == ["hel", "|", "hel"]


@pytest.mark.parametrize("failure", [LIMITED, AWAY, REJECTED])
async def test_the_next_model_is_asked_and_the_reply_says_which_answered(failure: PerdureError) -> None:
    first, second = FlakyModel([failure], "first"), FlakyModel([], "second")
    reply = await FallbackModel([first, second]).reply(REQUEST)
    assert (reply.text, reply.model, first.calls) == ("hello", "second", 1)


async def test_a_failure_that_is_no_models_is_not_passed_over() -> None:
    second = FlakyModel([])
    with pytest.raises(Failed, match="budget"):
        await FallbackModel([FlakyModel([Failed("budget_used_up", "budget")]), second]).reply(REQUEST)
    assert second.calls == 0


async def test_when_all_fail_the_error_names_all() -> None:
    chain = FallbackModel([FlakyModel([AWAY], "a"), FlakyModel([REJECTED], "b")])
    with pytest.raises(Failed) as caught:
        await chain.reply(REQUEST)
    assert caught.value.details["tried"] == [
        {"model": "a", "code": "model_unavailable"},
        {"model": "b", "code": "model_rejected"},
    ]


def test_a_chain_of_nothing_is_refused() -> None:
    with pytest.raises(Invalid, match="at least one"):
        FallbackModel([])


async def test_the_first_model_that_can_is_the_only_one_asked() -> None:
    second = FlakyModel([])
    assert (await FallbackModel([ScriptedModel(["one"]), second]).reply(REQUEST)).text == "one"
    assert second.calls == 0
