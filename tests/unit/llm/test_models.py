"""Models without a provider, and how a name becomes a model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from perdure.errors import Failed, Invalid, Refused
from perdure.llm import (
    ComponentModel,
    FallbackModel,
    FunctionModel,
    Model,
    ModelPolicy,
    ModelRequest,
    OpenAIAccess,
    OpenAIModel,
    RetryingModel,
    ScriptedModel,
    allow_outside_calls,
    forbid_outside_calls,
    make_model,
)
from perdure.sidecar.memory.chat import MemoryChat
from perdure.sidecar.ports import ChatCall, ChatMessage, ChatReply, ChatTool
from perdure.testing.clock import FakeClock
from perdure.types import JsonObject


def asked(*messages: tuple[str, str]) -> ModelRequest:
    return ModelRequest(tuple(ChatMessage(role, text) for role, text in messages))


def chat(answer: str = "hello") -> MemoryChat:
    async def converse(messages: Sequence[ChatMessage], tools: Sequence[ChatTool]) -> ChatReply:
        return ChatReply(f"{answer} {messages[-1].text}")

    return MemoryChat({"chat": converse})


async def test_a_script_is_followed_by_the_messages_and_not_by_the_number_of_calls() -> None:
    model = ScriptedModel(["one", "two"])
    first, second = asked(("user", "q")), asked(("user", "q"), ("assistant", "one"), ("tool", "x"))
    assert [(await model.reply(each)).text for each in (first, first, second, first)] == ["one", "one", "two", "one"]


async def test_a_script_begins_anew_with_each_user_message() -> None:
    model = ScriptedModel(["one", "two"])
    request = asked(("user", "q"), ("assistant", "one"), ("assistant", "two"), ("user", "again"))
    assert (await model.reply(request)).text == "one"


async def test_a_script_that_is_used_up_fails_instead_of_inventing() -> None:
    with pytest.raises(Failed, match="1 replies for a turn, reply 2 was asked for"):
        await ScriptedModel(["one"]).reply(asked(("user", "q"), ("assistant", "one")))


async def test_a_script_in_words_calls_tools_and_fills_in_what_they_said() -> None:
    model = make_model('scripted:@weather {"city": "a|b"} @clock | It is {result}, {user} \\| bye', chat())
    reply = await model.reply(asked(("user", "Ann")))
    assert [(call.name, call.arguments) for call in reply.calls] == [("weather", '{"city": "a|b"}'), ("clock", "{}")]
    assert (reply.finish, reply.text) == ("tool_calls", "")
    last = await model.reply(asked(("user", "Ann"), ("assistant", ""), ("tool", "{user}")))
    assert last.text == "It is {user}, Ann | bye"
    assert last.input_tokens > 0


async def test_call_ids_differ_between_the_rounds_of_a_conversation() -> None:
    model = ScriptedModel.parse("@a @b")
    first = await model.reply(asked(("user", "q")))
    later = await model.reply(asked(("user", "q"), ("assistant", ""), ("user", "q")))
    ids = [call.id for call in (*first.calls, *later.calls)]
    assert len(set(ids)) == 4


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("@a {1}", "arguments of @a are not JSON"),
        ("hello |", "empty"),
        ("@a {} and then", "must follow"),
    ],
)
def test_a_script_that_makes_no_sense_is_refused_with_the_place(script: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        ScriptedModel.parse(script)
    assert "at character" in caught.value.message


async def test_a_script_can_take_its_time() -> None:
    clock = FakeClock()
    model = ScriptedModel(["slow"], delay_s=1.0, clock=clock)
    reply = asyncio.create_task(model.reply(asked(("user", "q"))))
    await clock.advance(0.9)
    assert not reply.done()
    await clock.advance(0.2)
    assert (await reply).text == "slow"


async def test_pieces_of_a_streamed_answer_are_the_answer() -> None:
    for model in (ScriptedModel(["a b  c"]), FunctionModel(lambda _request: "a b  c")):
        pieces: list[str] = []
        reply = await model.reply(ModelRequest((ChatMessage("user", "q"),), on_text=pieces.append))
        assert "".join(pieces) == reply.text == "a b  c"


async def test_a_function_is_a_model_sync_or_async() -> None:
    async def later(request: ModelRequest) -> ChatReply:
        return ChatReply(request.messages[-1].text.upper())

    model = make_model(later, chat())
    assert isinstance(model, Model)
    assert await model.reply(asked(("user", "q"))) == ChatReply("Q", model="function:later")


async def test_a_component_answers_over_the_door() -> None:
    pieces: list[str] = []
    model = make_model("component:chat", chat(), chat_is_outside=False)
    reply = await model.reply(ModelRequest((ChatMessage("user", "you"),), on_text=pieces.append))
    assert (model.name, reply.text, pieces) == ("component:chat", "hello you", ["hello you"])
    assert reply.model


@pytest.mark.parametrize("spec", ["gpt-5", "", "llama:x", "component:", 7])
def test_an_unknown_name_is_refused_with_the_forms(spec: str) -> None:
    with pytest.raises(Invalid, match="component:NAME") as caught:
        make_model(spec, chat())
    assert caught.value.code == "model_unknown"


def test_a_list_of_names_is_a_chain_and_a_list_of_one_is_that_one() -> None:
    model = make_model(["component:chat", ScriptedModel(["spare"])], chat())
    assert isinstance(model, FallbackModel)
    assert model.name == "component:chat, scripted"
    assert isinstance(make_model(["scripted:hi"], chat()), ScriptedModel)


def test_calls_that_may_fail_for_a_while_are_repeated_by_one_owner() -> None:
    made = make_model("component:chat", chat())
    assert isinstance(made, RetryingModel)
    assert make_model(made, chat()) is made


def test_an_openai_model_without_key_or_address_is_refused() -> None:
    with pytest.raises(Invalid, match="OPENAI_API_KEY"):
        make_model("openai:gpt-5", chat())
    assert make_model("openai:gpt-5", chat(), openai=OpenAIAccess(api_key="k")).name == "openai:gpt-5"


@pytest.mark.parametrize("model", [ComponentModel("chat", chat()), OpenAIModel("m", api_key="k")])
async def test_the_switch_forbids_calls_that_leave_the_process(model: Model) -> None:
    with forbid_outside_calls(), pytest.raises(Refused) as caught:
        await asyncio.create_task(model.reply(asked(("user", "q"))))
    assert caught.value.code == "model_calls_forbidden"


async def test_a_policy_forbids_even_where_the_context_allows() -> None:
    model = ComponentModel("chat", chat(), policy=ModelPolicy(allow_outside=False))
    with allow_outside_calls(), pytest.raises(Refused, match="PERDURE_LLM__ALLOW_OUTSIDE"):
        await model.reply(asked(("user", "q")))


async def test_a_door_inside_the_process_is_not_concerned() -> None:
    schema: JsonObject = {"type": "object"}
    model = ComponentModel("chat", chat(), outside=False)
    request = ModelRequest(
        (ChatMessage("user", "q", calls=(ChatCall("1", "a", "{}"),)),), response_schema=schema, temperature=0.5
    )
    with forbid_outside_calls():
        assert (await model.reply(request)).text == "hello q"
