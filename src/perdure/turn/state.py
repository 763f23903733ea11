"""What a session's log folds to: what was said lately, the turn in progress, and the turns behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.conversation.message import Message
from perdure.llm.usage import Usage
from perdure.types import JsonObject


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call of the model's newest reply.

    `id` pairs it with its result in the transcript; `key` names it in the log. `digest` is set once it is
    reserved, `result` (what the model is told) once its outcome is known.
    """

    key: str
    id: str
    name: str
    arguments: str
    digest: str = ""
    result: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A user's text that is not part of the transcript yet. `run` is the turn it begins or steers."""

    run: int
    text: str
    at: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the turn fails."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn in progress: it waits for the model (`due`), for `calls`, or has its `answer`."""

    run: int
    due: int
    """The commit that made a model call necessary, which names that call; 0 while none is."""
    steps: int = 0
    used: Mapping[str, Usage] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    steers: tuple[Said, ...] = ()
    answer: str | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Uncertain:
    """A call whose outcome nobody knows. The same call again is put to a person."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class SessionState:
    """Bounded: the newest exchanges, the turn in progress, the accepted ones behind it."""

    session: str = ""
    messages: tuple[Message, ...] = ()
    turn: Turn | None = None
    queued: tuple[Said, ...] = ()
    uncertain: tuple[Uncertain, ...] = ()


def total(used: Mapping[str, Usage]) -> Usage:
    """The sum over all models."""
    return Usage.total(used.values())


def usage_json(used: Mapping[str, Usage]) -> JsonObject:
    """Usage as it is recorded and shown."""
    usage = total(used)
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
