"""What an agent expects of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from perdure.sidecar.ports import ChatMessage, ChatReply, ChatTool
from perdure.types import JsonObject

DEFAULT_TIMEOUT_S = 120.0
"""A reasoning model may think for a minute or more before its first word."""


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question to a model."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[ChatTool, ...] = ()
    temperature: float | None = None
    response_schema: JsonObject | None = None
    """JSON schema that the answer's text must follow."""
    timeout_s: float = DEFAULT_TIMEOUT_S
    on_text: Callable[[str], None] | None = None
    """Called with pieces of the answer as they arrive; the reply has the whole. A model that cannot stream calls
    it once."""
    on_restart: Callable[[], None] | None = None
    """Called when pieces already given are void, because the call was cut and is made again."""


@runtime_checkable
class Model(Protocol):
    """Answers requests. One call is one attempt, unless the model is made of others (retrying, fallback)."""

    @property
    def name(self) -> str:
        """How people refer to it: `component:chat`, `openai:gpt-5`."""
        ...

    async def reply(self, request: ModelRequest) -> ChatReply:
        """The model's whole answer; `ChatReply.model` is never empty.

        Raises: Transient (codes `model_rate_limited`, `model_unavailable`), Failed (code `model_rejected`),
        NotFound (no such component), Refused (code `model_calls_forbidden`).
        """
        ...


def named(reply: ChatReply, name: str) -> ChatReply:
    """`reply`, saying `name` where the provider did not report which model answered."""
    return reply if reply.model else dataclasses.replace(reply, model=name)


class Listener:
    """Stands before `on_text` to know whether somebody has seen a part of an answer that is now void."""

    def __init__(self, request: ModelRequest) -> None:
        self._request = request
        self._heard = False

    @property
    def request(self) -> ModelRequest:
        """The request to pass on."""
        return (
            self._request if self._request.on_text is None else dataclasses.replace(self._request, on_text=self._hear)
        )

    def restart(self) -> None:
        """The call is made again: what was heard is void."""
        if self._heard and self._request.on_restart is not None:
            self._request.on_restart()
        self._heard = False

    def _hear(self, text: str) -> None:
        self._heard = True
        if self._request.on_text is not None:
            self._request.on_text(text)
