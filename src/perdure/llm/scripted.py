"""A model that answers from a script: for tests, benchmarks and demos without a provider."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from perdure.clock import Clock, SystemClock
from perdure.errors import Failed, Invalid
from perdure.llm.model import ModelRequest, named
from perdure.llm.usage import estimate_tokens
from perdure.sidecar.ports import ChatCall, ChatMessage, ChatReply

_CALL = re.compile(r"@([A-Za-z0-9_-]+)\s*")
_WORD = re.compile(r"\S+\s*|\s+")

SYNTAX = (
    'a script is replies separated by |, each a text or tool calls like @weather {"city": "Oslo"}; '
    "in a text {user} is what the user said and {result} the last tool's result; \\| is a plain |"
)


class ScriptedModel:
    """Gives the replies of a list, one after the other within each turn.

    Which one is decided by the messages given (how many answers of the model stand after the last user message),
    not by how often it was asked: asked again after a crash, it says the same again. When the list is used up,
    it raises Failed (code `model_script_over`). `delay_s` makes each answer take that long.
    """

    def __init__(
        self,
        replies: Sequence[ChatReply | str],
        *,
        name: str = "scripted",
        delay_s: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self._replies = tuple(ChatReply(each) if isinstance(each, str) else each for each in replies)
        self._name = name
        self._delay_s = delay_s
        self._clock = clock or SystemClock()

    @classmethod
    def parse(cls, script: str) -> ScriptedModel:
        """The model that a text describes: `@weather {"city": "Oslo"} | It will be {result}.`

        Raises: Invalid (code `model_script_wrong`), saying where.
        """
        return _TemplateModel(_Parser(script).replies())

    @property
    def name(self) -> str:
        return self._name

    async def reply(self, request: ModelRequest) -> ChatReply:
        if self._delay_s:
            await self._clock.sleep(self._delay_s)
        position = _answers_in_turn(request.messages)
        if position >= len(self._replies):
            raise Failed(
                "model_script_over",
                f"the scripted model has {len(self._replies)} replies for a turn, reply {position + 1} was asked for",
                replies=len(self._replies),
            )
        reply = self._prepared(self._replies[position], request)
        if request.on_text is not None:
            for word in _WORD.findall(reply.text):
                request.on_text(word)
        return named(reply, self.name)

    def _prepared(self, reply: ChatReply, request: ModelRequest) -> ChatReply:
        return reply


class _TemplateModel(ScriptedModel):
    """Fills placeholders and makes the ids of calls differ between the rounds of a conversation."""

    def __init__(self, replies: Sequence[ChatReply]) -> None:
        super().__init__(replies)

    def _prepared(self, reply: ChatReply, request: ModelRequest) -> ChatReply:
        said = sum(message.role == "assistant" for message in request.messages)
        text = _filled(reply.text, request.messages)
        calls = tuple(replace(call, id=f"call-{said}-{at}") for at, call in enumerate(reply.calls))
        asked = sum(estimate_tokens(message.text) for message in request.messages)
        answered = estimate_tokens(text) + sum(estimate_tokens(call.arguments) for call in calls)
        return replace(reply, text=text, calls=calls, input_tokens=asked, output_tokens=answered)


def _answers_in_turn(messages: Sequence[ChatMessage]) -> int:
    count = 0
    for message in reversed(messages):
        if message.role == "user":
            break
        count += message.role == "assistant"
    return count


def _filled(text: str, messages: Sequence[ChatMessage]) -> str:
    if "{" not in text:
        return text
    last = {message.role: message.text for message in messages}
    values = {"{user}": last.get("user", ""), "{result}": last.get("tool", "")}
    return re.sub(r"\{user\}|\{result\}", lambda match: values[match[0]], text)


@dataclass
class _Parser:
    script: str
    at: int = 0

    def replies(self) -> list[ChatReply]:
        found = [self._reply()]
        while self.at < len(self.script):
            self.at += 1  # the separator
            found.append(self._reply())
        return found

    def _reply(self) -> ChatReply:
        self._skip_space()
        calls: list[ChatCall] = []
        while match := _CALL.match(self.script, self.at):
            self.at = match.end()
            calls.append(ChatCall(id="", name=match[1], arguments=self._arguments(match[1])))
            self._skip_space()
        if not calls:
            return ChatReply(self._text())
        if self.at < len(self.script) and self.script[self.at] != "|":
            raise self._wrong("after tool calls, | or the end must follow")
        return ChatReply("", tuple(calls), finish="tool_calls")

    def _arguments(self, tool: str) -> str:
        if not self.script.startswith("{", self.at):
            return "{}"
        try:
            _, end = json.JSONDecoder().raw_decode(self.script, self.at)
        except json.JSONDecodeError as error:
            raise self._wrong(f"the arguments of @{tool} are not JSON ({error.msg})") from error
        text, self.at = self.script[self.at : end], end
        return text

    def _text(self) -> str:
        match = re.compile(r"(?:\\\||[^|])*").match(self.script, self.at)
        text = match[0] if match else ""
        self.at += len(text)
        if not text.strip():
            raise self._wrong("a reply is empty")
        return text.strip().replace("\\|", "|")

    def _skip_space(self) -> None:
        while self.at < len(self.script) and self.script[self.at].isspace():
            self.at += 1

    def _wrong(self, what: str) -> Invalid:
        message = f"model script: {what}, at character {self.at + 1} of {self.script!r}; {SYNTAX}"
        return Invalid("model_script_wrong", message, position=self.at)
