"""How much of a conversation is kept at hand and shown to a model."""

from __future__ import annotations

from collections.abc import Sequence

from perdure.conversation.message import Message
from perdure.conversation.transcript import valid
from perdure.sidecar.ports import ChatMessage


def newest(messages: Sequence[Message], limit: int | None) -> tuple[Message, ...]:
    """The newest whole exchanges with at most `limit` messages together (None: all).

    The newest exchange is never cut, however long: a call without its result, or a result without its call,
    is refused by models.
    """
    if limit is None or len(messages) <= limit:
        return tuple(messages)
    for start in range(len(messages) - limit, len(messages)):
        if _begins(messages, start):
            return tuple(messages[start:])
    start = len(messages) - limit
    while not _begins(messages, start):
        start -= 1
    return tuple(messages[start:])


def _begins(messages: Sequence[Message], at: int) -> bool:
    """Whether an exchange begins there."""
    return at == 0 or messages[at].run != messages[at - 1].run


def shown(messages: Sequence[Message], limit: int | None, instructions: str = "") -> list[ChatMessage]:
    """What a model is sent: the instructions, if any, then the newest whole exchanges, always valid."""
    system = [ChatMessage("system", instructions)] if instructions else []
    return system + [message.for_model() for message in valid(newest(messages, limit))]
