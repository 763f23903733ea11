"""One message of a session."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, TypeAlias

from perdure.sidecar.ports import ChatCall, ChatMessage
from perdure.types import Json, JsonObject

Role: TypeAlias = Literal["user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """`run` is the number of the turn it belongs to, `at` the RFC 3339 moment it was recorded.

    An assistant's message may hold `calls`; each is answered by a tool's message with that `call_id` and `name`.
    """

    role: Role
    text: str = ""
    calls: tuple[ChatCall, ...] = ()
    call_id: str = ""
    name: str = ""
    at: str = ""
    run: int = 0

    def for_model(self) -> ChatMessage:
        """The message as a model is shown it."""
        return ChatMessage(self.role, self.text, self.calls, self.call_id, self.name if self.role == "tool" else "")

    def for_people(self) -> JsonObject:
        """The message as HTTP shows it: without what it does not have."""
        shown: JsonObject = {"role": self.role, "text": self.text, "at": self.at}
        if self.calls:
            shown["calls"] = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in self.calls]
        if self.role == "tool":
            shown["call_id"] = self.call_id
        if self.name:
            shown["name"] = self.name
        return shown


def error_text(kind: str, message: str) -> str:
    """A call's result when it has none: an error of a stable `kind` that the model can act on, as JSON."""
    content: dict[str, Json] = {"error": {"type": kind, "message": message}}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
