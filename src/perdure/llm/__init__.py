"""Models: how an agent asks one, repeats a call, falls back to another and counts what it used."""

from perdure.llm.component import ComponentModel
from perdure.llm.fallback import FallbackModel
from perdure.llm.function import FunctionModel
from perdure.llm.model import Model, ModelRequest
from perdure.llm.openai_model import OpenAIModel
from perdure.llm.policy import ModelPolicy, allow_outside_calls, forbid_outside_calls
from perdure.llm.retry import RetryingModel, RetryPolicy
from perdure.llm.scripted import ScriptedModel
from perdure.llm.spec import ModelSpec, OpenAIAccess, make_model
from perdure.llm.structured import AnswerShape, Misfit
from perdure.llm.usage import Price, PriceTable, Usage, UsageLimits, estimate_tokens

__all__ = [
    "AnswerShape",
    "ComponentModel",
    "FallbackModel",
    "FunctionModel",
    "Misfit",
    "Model",
    "ModelPolicy",
    "ModelRequest",
    "ModelSpec",
    "OpenAIAccess",
    "OpenAIModel",
    "Price",
    "PriceTable",
    "RetryPolicy",
    "RetryingModel",
    "ScriptedModel",
    "Usage",
    "UsageLimits",
    "allow_outside_calls",
    "estimate_tokens",
    "forbid_outside_calls",
    "make_model",
]
