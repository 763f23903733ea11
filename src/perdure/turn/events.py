"""What happens in a turn beside what every run has. Names and fields, once written, keep their meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perdure.sidecar.ports import ChatCall


@dataclass(frozen=True, slots=True)
class ModelReplied:
    """The model's whole reply. `heard` steering texts were part of what it was asked.

    The text of a turn's answer stands here and nowhere else.
    """

    run: int
    text: str
    calls: tuple[ChatCall, ...] = ()
    finish: str = "stop"
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    heard: int = 0
    t: Literal["model_replied"] = "model_replied"


@dataclass(frozen=True, slots=True)
class CallInvalid:
    """The call cannot be made (unknown tool, wrong arguments): nothing ran, the model is told `text`."""

    key: str
    problem: str
    text: str
    t: Literal["call_invalid"] = "call_invalid"


@dataclass(frozen=True, slots=True)
class AnswerMisfit:
    """The answer does not have the shape the agent promises; the model is told `text` and asked again."""

    run: int
    text: str
    t: Literal["answer_misfit"] = "answer_misfit"


@dataclass(frozen=True, slots=True)
class TurnFailed:
    """The turn cannot go on: the model stays away, or a tool ended it. It closes once its effects are settled."""

    run: int
    code: str
    message: str
    t: Literal["turn_failed"] = "turn_failed"


OWN: tuple[type, ...] = (ModelReplied, CallInvalid, AnswerMisfit, TurnFailed)
