"""Several models, of which the first that can answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from perdure.errors import Failed, Invalid, PerdureError, Transient
from perdure.llm.model import Listener, Model, ModelRequest
from perdure.observability.logs import get_logger
from perdure.sidecar.ports import ChatReply

_log = get_logger("perdure.llm")


class FallbackModel:
    """Asks one model after the other, going on after Transient and after Failed with a `model_` code.

    The reply's `model` is the name of the one that answered. When all fail, it raises what the last one raised,
    with `details["tried"]`.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise Invalid("model_spec_wrong", "a fallback chain needs at least one model")
        self._models = tuple(models)

    @property
    def name(self) -> str:
        return ", ".join(model.name for model in self._models)

    @property
    def models(self) -> tuple[Model, ...]:
        """In the order they are asked."""
        return self._models

    async def reply(self, request: ModelRequest) -> ChatReply:
        listener = Listener(request)
        tried: list[dict[str, str]] = []
        for model in self._models:
            try:
                reply = await model.reply(listener.request)
            except (Transient, Failed) as failure:
                tried.append({"model": model.name, "code": failure.code})
                if not _goes_on(failure) or model is self._models[-1]:
                    failure.details["tried"] = tried
                    raise
                _log.warning("model_fell_back", model=model.name, code=failure.code, reason=failure.message)
                listener.restart()
            else:
                if tried:
                    _log.info("model_answered", model=model.name, reported=reply.model, after=tried)
                return dataclasses.replace(reply, model=model.name)
        raise AssertionError("unreachable: a chain is never empty")


def _goes_on(failure: PerdureError) -> bool:
    return isinstance(failure, Transient) or failure.code.startswith("model_")
