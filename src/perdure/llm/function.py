"""A model that is a Python function."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from perdure.llm.model import ModelRequest, named
from perdure.sidecar.ports import ChatReply

ReplyFunction: TypeAlias = Callable[[ModelRequest], "ChatReply | str | Awaitable[ChatReply | str]"]


class FunctionModel:
    """Answers with what `function(request)` returns: a reply, or just its text. It may be async."""

    def __init__(self, function: ReplyFunction, name: str | None = None) -> None:
        self._function = function
        self._name = name or f"function:{getattr(function, '__name__', type(function).__name__)}"

    @property
    def name(self) -> str:
        return self._name

    async def reply(self, request: ModelRequest) -> ChatReply:
        answer = self._function(request)
        if inspect.isawaitable(answer):
            answer = await answer
        reply = ChatReply(answer) if isinstance(answer, str) else answer
        if request.on_text is not None and reply.text:
            request.on_text(reply.text)
        return named(reply, self.name)
