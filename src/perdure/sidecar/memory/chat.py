"""Conversation components that are functions of this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from perdure.errors import NotFound
from perdure.sidecar.ports import ChatMessage, ChatReply, ChatTool
from perdure.types import JsonObject

ChatFunction: TypeAlias = Callable[[Sequence[ChatMessage], Sequence[ChatTool]], Awaitable[ChatReply]]


class MemoryChat:
    """Answers with registered functions and refuses every other component: nothing leaves the process."""

    def __init__(self, components: Mapping[str, ChatFunction] | None = None) -> None:
        self._components = dict(components or {})

    def register(self, component: str, answer: ChatFunction) -> None:
        """Let `answer` be the component of that name."""
        self._components[component] = answer

    async def converse(
        self,
        component: str,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ChatTool] = (),
        temperature: float | None = None,
        response_schema: JsonObject | None = None,
        timeout_s: float = 120.0,
    ) -> ChatReply:
        answer = self._components.get(component)
        if answer is None:
            raise NotFound(
                "component_unknown",
                f"no conversation component {component!r} in this process, which has {sorted(self._components)}; "
                "give the agent model='scripted:…' or a model object, or run it beside Dapr with such a component",
                component=component,
            )
        return await answer(messages, tools)
