"""A model that needs no network: it recognises plain requests by rules, so that all can be tried without a key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.llm.model import ModelRequest
from perdure.llm.usage import estimate_tokens
from perdure.sidecar.ports import ChatCall, ChatMessage, ChatReply

NOTICE = "(offline model: it knows a few phrases; set OPENAI_API_KEY for a real one)"

Arguments = Callable[[re.Match[str]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A phrase that means a call of `tool`; named groups of the pattern are its arguments unless `arguments` says."""

    tool: str
    pattern: str
    example: str
    arguments: Arguments = re.Match.groupdict


class OfflineModel:
    """Answers by rules, and from the results of the tools it called. It decides from the messages alone, so asked
    again after a crash, it says the same again. Every answer says that it comes from this model."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules = tuple(rules)

    @property
    def name(self) -> str:
        return "offline"

    async def reply(self, request: ModelRequest) -> ChatReply:
        """The calls that the user's text asks for; once their results are there, the answer."""
        asked, results = _turn(request.messages)
        known = {tool.name for tool in request.tools}
        calls = () if results else self._calls(asked, known)
        text = "" if calls else self._text(results, known)
        if text and request.on_text is not None:
            request.on_text(text)
        tokens = sum(estimate_tokens(message.text) for message in request.messages)
        finish = "tool_calls" if calls else "stop"
        return ChatReply(text, calls, finish, tokens, estimate_tokens(text), self.name)

    def _calls(self, asked: str, known: set[str]) -> tuple[ChatCall, ...]:
        found: list[ChatCall] = []
        for rule in self._rules:
            if rule.tool not in known:
                continue
            for match in re.finditer(rule.pattern, asked, re.IGNORECASE):
                given = {key: value for key, value in rule.arguments(match).items() if value is not None}
                found.append(ChatCall(f"call-{len(found) + 1}", rule.tool, json.dumps(given)))
        return tuple(found)

    def _text(self, results: Sequence[ChatMessage], known: set[str]) -> str:
        if results:
            return " ".join([*(result.text for result in results), NOTICE])
        examples = "; ".join(rule.example for rule in self._rules if rule.tool in known)
        return f"I did not recognise a request. Try: {examples}. {NOTICE}" if examples else f"I heard you. {NOTICE}"


def _turn(messages: Sequence[ChatMessage]) -> tuple[str, list[ChatMessage]]:
    """What the user said last, and the results of tools since."""
    results: list[ChatMessage] = []
    for message in reversed(messages):
        if message.role == "user":
            return message.text, results[::-1]
        if message.role == "tool":
            results.append(message)
    return "", results[::-1]
