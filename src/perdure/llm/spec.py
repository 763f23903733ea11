"""From how a user names a model to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from perdure.clock import Clock, SystemClock
from perdure.errors import Invalid
from perdure.llm.component import ComponentModel
from perdure.llm.fallback import FallbackModel
from perdure.llm.function import FunctionModel, ReplyFunction
from perdure.llm.model import Model
from perdure.llm.openai_model import OpenAIModel
from perdure.llm.policy import ModelPolicy
from perdure.llm.retry import RetryingModel, RetryPolicy
from perdure.llm.scripted import SYNTAX, ScriptedModel
from perdure.sidecar.ports import Chat

ModelSpec: TypeAlias = "str | Model | ReplyFunction | Sequence[str | Model | ReplyFunction]"
"""A name like `component:chat`, a model, a function of the request, or several of these as a fallback chain."""

FORMS = "component:NAME (a Dapr conversation component), openai:NAME, scripted:SCRIPT"


@dataclass(frozen=True, slots=True)
class OpenAIAccess:
    """How `openai:` models are reached; without `base_url`, OpenAI itself."""

    api_key: str | None = field(default=None, repr=False)
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class _Maker:
    chat: Chat
    policy: ModelPolicy
    retry: RetryPolicy
    clock: Clock
    access: OpenAIAccess
    chat_is_outside: bool

    def one(self, spec: str | Model | ReplyFunction) -> Model:
        if isinstance(spec, str):
            return self._named(spec.strip())
        if isinstance(spec, ScriptedModel | FunctionModel | RetryingModel | FallbackModel):
            return spec
        if isinstance(spec, Model):
            return self._repeated(spec)
        if callable(spec):
            return FunctionModel(spec)
        raise _unknown(spec)

    def _named(self, spec: str) -> Model:
        form, colon, name = spec.partition(":")
        if not colon or not name.strip():
            raise _unknown(spec)
        if form == "scripted":
            return ScriptedModel.parse(name)
        if form == "component":
            return self._repeated(ComponentModel(name, self.chat, policy=self.policy, outside=self.chat_is_outside))
        if form == "openai":
            access = self.access
            model = OpenAIModel(
                name, policy=self.policy, api_key=access.api_key, base_url=access.base_url, clock=self.clock
            )
            return self._repeated(model)
        raise _unknown(spec)

    def _repeated(self, model: Model) -> Model:
        return RetryingModel(model, self.retry, clock=self.clock)


def make_model(
    spec: ModelSpec,
    chat: Chat,
    *,
    policy: ModelPolicy | None = None,
    retry: RetryPolicy | None = None,
    clock: Clock | None = None,
    openai: OpenAIAccess | None = None,
    chat_is_outside: bool = True,
) -> Model:
    """The model that `spec` names, with repeated attempts around each that may need them.

    `chat_is_outside` False: the chat door answers within this process, so the policy does not concern it.

    Raises: Invalid (codes `model_unknown`, `model_script_wrong`, `extra_missing`).
    """
    maker = _Maker(
        chat, policy or ModelPolicy(), retry or RetryPolicy(), clock or SystemClock(), openai or OpenAIAccess(),
        chat_is_outside,
    )  # fmt: skip
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        models = [maker.one(each) for each in spec]
        return models[0] if len(models) == 1 else FallbackModel(models)
    return maker.one(spec)


def _unknown(spec: object) -> Invalid:
    return Invalid("model_unknown", f"model {spec!r} is unknown; the forms are: {FORMS}; {SYNTAX}", model=str(spec))
