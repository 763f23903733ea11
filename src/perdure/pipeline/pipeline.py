"""How pipelines, and agents that handle steps for pipelines elsewhere, are declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from perdure.effect import Effect
from perdure.errors import Invalid
from perdure.pipeline.graph import Graph, StepSpec, check_graph, check_name
from perdure.pipeline.server import Handler, StepHandler

H = TypeVar("H", bound=Handler)

TIMEOUT_S = 300.0
"""Longer than a healthy call takes; a step that needs more says so."""

MAX_RETRIES = {Effect.READ: 3, Effect.IDEMPOTENT: 3, Effect.ONCE: 0}
"""A `once` handler that raised may have got through before; only its author can say that it did not."""


class StepAgent:
    """Handles steps of pipelines that run elsewhere: `@agent.step()` over `async def f(message, context)`.

    Raises: Invalid (`name_malformed`, `step_duplicate`, `effect_unknown`, `step_option`).
    """

    def __init__(self, name: str) -> None:
        self.name = check_name("agent", name)
        self.handlers: dict[str, StepHandler] = {}

    def step(
        self, *, name: str | None = None, effect: Effect | str = Effect.ONCE, timeout_s: float = TIMEOUT_S
    ) -> Callable[[H], H]:
        """Declare a handler; its name is the function's unless given."""

        def declare(function: H) -> H:
            handler = _handler(name or function.__name__, function, effect, timeout_s)
            if handler.name in self.handlers:
                raise _duplicate(f"agent {self.name!r}", handler.name)
            self.handlers[handler.name] = handler
            return function

        return declare


class Pipeline:
    """Steps that depend on each other. Declared once, at import; `graph` is checked when a service starts.

    Raises: Invalid (`name_malformed`, `step_duplicate`, `effect_unknown`, `step_option`, `dependency_self`).
    """

    def __init__(self, name: str) -> None:
        self.name = check_name("pipeline", name)
        self.handlers: dict[str, StepHandler] = {}
        self._specs: dict[str, StepSpec] = {}

    def step(
        self,
        *,
        name: str | None = None,
        depends_on: Sequence[str] = (),
        effect: Effect | str = Effect.ONCE,
        app: str | None = None,
        max_retries: int | None = None,
        retry_delay: float = 1.0,
        timeout_s: float = TIMEOUT_S,
    ) -> Callable[[H], H]:
        """Declare a step by its handler. With `app`, that app runs its own handler of this name (see `StepAgent`).

        `max_retries` repetitions follow a call that failed, the first after `retry_delay` seconds, each later one
        after twice as long; then the run fails. Unless given there are 3, for a `once` step none: whoever gives them
        says that nothing has happened when the handler raises. A `once` step that was cut, by a crash or by
        `timeout_s`, is in doubt and is not repeated.
        """

        def declare(function: H) -> H:
            handler = _handler(name or function.__name__, function, effect, timeout_s)
            self._declare(handler.name, depends_on, app, handler.effect, max_retries, retry_delay, timeout_s)
            if app is None:
                self.handlers[handler.name] = handler
            return function

        return declare

    def remote(
        self,
        name: str,
        app: str,
        *,
        depends_on: Sequence[str] = (),
        effect: Effect | str = Effect.ONCE,
        max_retries: int | None = None,
        retry_delay: float = 1.0,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Declare a step that `app` handles (service invocation of `/steps/{name}`); options as for `step`."""
        self._declare(name, depends_on, app, _effect(name, effect), max_retries, retry_delay, timeout_s)

    @property
    def graph(self) -> Graph:
        """The checked graph. Raises: Invalid (`pipeline_empty`, `dependency_unknown`, `dependency_cycle`)."""
        return check_graph(self.name, tuple(self._specs.values()))

    def _declare(
        self, name: str, depends_on: Sequence[str], app: str | None, effect: Effect, max_retries: int | None,
        delay: float, timeout_s: float,
    ) -> None:  # fmt: skip
        retries = MAX_RETRIES[effect] if max_retries is None else max_retries
        check_name("step", name)
        if name in self._specs:
            raise _duplicate(f"pipeline {self.name!r}", name)
        if isinstance(depends_on, str):
            raise Invalid("step_option", f"step {name!r}: depends_on is a list of names; write [{depends_on!r}]")
        if name in depends_on:
            message = f"step {name!r} of pipeline {self.name!r} depends on itself; remove {name} -> {name}"
            raise Invalid("dependency_self", message, path=f"{name} -> {name}")
        if retries < 0 or delay < 0 or timeout_s <= 0:
            raise Invalid("step_option", f"step {name!r}: max_retries and retry_delay are 0 or more, timeout_s is more")
        unique = tuple(dict.fromkeys(depends_on))
        self._specs[name] = StepSpec(name, unique, app or "", effect, retries, delay, timeout_s)


def _handler(name: str, function: Handler, effect: Effect | str, timeout_s: float) -> StepHandler:
    return StepHandler(check_name("step", name), function, _effect(name, effect), timeout_s)


def _effect(step: str, effect: Effect | str) -> Effect:
    try:
        return Effect(effect)
    except ValueError as error:
        known = ", ".join(repr(str(each)) for each in Effect)
        raise Invalid("effect_unknown", f"step {step!r}: effect must be one of {known}; got {effect!r}") from error


def _duplicate(owner: str, step: str) -> Invalid:
    return Invalid("step_duplicate", f"{owner} declares step {step!r} twice; give one another name", step=step)
