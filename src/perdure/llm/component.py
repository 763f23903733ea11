"""A model behind a Dapr conversation component."""

from __future__ import annotations

from perdure.llm.model import ModelRequest, named
from perdure.llm.policy import ModelPolicy
from perdure.sidecar.ports import Chat, ChatReply


class ComponentModel:
    """`component:NAME`. The Conversation API does not stream, so `on_text` gets the answer in one piece.

    `outside` False says that the door answers within this process, so the policy is not asked.
    """

    def __init__(self, component: str, chat: Chat, *, policy: ModelPolicy | None = None, outside: bool = True) -> None:
        self._component = component
        self._chat = chat
        self._policy = policy or ModelPolicy()
        self._outside = outside

    @property
    def name(self) -> str:
        return f"component:{self._component}"

    async def reply(self, request: ModelRequest) -> ChatReply:
        if self._outside:
            self._policy.check(self.name)
        reply = await self._chat.converse(
            self._component,
            request.messages,
            tools=request.tools,
            temperature=request.temperature,
            response_schema=request.response_schema,
            timeout_s=request.timeout_s,
        )
        if request.on_text is not None and reply.text:
            request.on_text(reply.text)
        return named(reply, self.name)
