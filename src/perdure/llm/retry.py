"""Repeating a model call: only what may succeed when repeated, and not for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from perdure.clock import Clock, SystemClock
from perdure.errors import Transient
from perdure.llm.model import Listener, Model, ModelRequest
from perdure.observability.logs import get_logger
from perdure.sidecar.ports import ChatReply

_log = get_logger("perdure.llm")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long. Only Transient failures (429, 5xx, a cut connection) are repeated; 4xx never."""

    max_attempts: int = 4
    """Calls in all. Four ride out a rate limit of some seconds; more only delays telling the user."""
    first_wait_s: float = 0.5
    """Doubled after each attempt; a random half of it is waited less, so that callers spread."""
    max_wait_s: float = 20.0
    total_s: float = 120.0
    """After this no attempt is begun."""

    def wait_s(self, attempt: int, failure: Transient, chance: float) -> float:
        """How long to wait after failed attempt number `attempt` (from 1); `chance` is from 0 to 1.

        What the provider asks for (`details["retry_after_s"]`) is never undercut.
        """
        backoff = min(self.max_wait_s, self.first_wait_s * 2.0 ** (attempt - 1)) * (0.5 + 0.5 * chance)
        return max(backoff, _retry_after_s(failure))


class RetryingModel:
    """Asks `model` again after a Transient failure. The only place where model calls are repeated.

    Raises what the last attempt raised, also when the wait a provider asks for would not fit into the time.
    """

    def __init__(
        self,
        model: Model,
        policy: RetryPolicy | None = None,
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._model = model
        self._policy = policy or RetryPolicy()
        self._clock = clock or SystemClock()
        self._chance = chance

    @property
    def name(self) -> str:
        return self._model.name

    async def reply(self, request: ModelRequest) -> ChatReply:
        started = self._clock.monotonic()
        listener = Listener(request)
        attempt = 1
        while True:
            try:
                return await self._model.reply(listener.request)
            except Transient as failure:
                wait_s = self._policy.wait_s(attempt, failure, self._chance())
                spent_s = self._clock.monotonic() - started
                if attempt >= self._policy.max_attempts or spent_s + wait_s > self._policy.total_s:
                    raise
                _log.warning(
                    "model_call_repeated", model=self.name, attempt=attempt, code=failure.code, wait_s=round(wait_s, 3)
                )
            await self._clock.sleep(wait_s)
            listener.restart()
            attempt += 1


def _retry_after_s(failure: Transient) -> float:
    hint = failure.details.get("retry_after_s", 0)
    return float(hint) if isinstance(hint, int | float) else 0.0
