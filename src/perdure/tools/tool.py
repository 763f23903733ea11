"""The `tool` decorator and what it makes of a function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar, overload

from perdure.effect import Doubt, Effect
from perdure.errors import Invalid
from perdure.sidecar.ports import ChatTool
from perdure.tools.arguments import Arguments, arguments_of
from perdure.tools.docstring import parse_docstring
from perdure.tools.reconciled import Reconcile, takes_arguments
from perdure.types import JsonObject

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

Approval: TypeAlias = bool | Callable[[Mapping[str, Any]], bool]
"""Whether a person must approve a call: always, never, or by its arguments. A callable must be pure."""

DEFAULT_TIMEOUT_S = 60.0
"""Longer than any healthy HTTP service takes, short enough that a hung tool is noticed while somebody waits."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What every provider accepts as a function name."""


@dataclass(frozen=True, eq=False)
class Tool(Generic[P, R]):
    """A function a model may call; still callable as the function it was made of."""

    name: str
    description: str
    function: Callable[P, R]
    parameters: Arguments
    effect: Effect = Effect.ONCE
    doubt: Doubt = Doubt.TELL
    timeout_s: float | None = DEFAULT_TIMEOUT_S
    approval: Approval = False
    reconcile: Reconcile | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "__doc__", inspect.getdoc(self.function)
        )  # so that help(tool) shows the author's words

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def schema(self) -> JsonObject:
        """JSON schema of the arguments."""
        return self.parameters.schema

    @property
    def offer(self) -> ChatTool:
        """The tool as it is offered to a model."""
        return ChatTool(self.name, self.description, self.schema)

    def needs_approval(self, values: Mapping[str, Any]) -> bool:
        """Whether a person must approve a call with these arguments."""
        return self.approval(values) if callable(self.approval) else self.approval

    def reconciles(self, function: F) -> F:
        """Decorator: `function(key)` tells what became of the call with that key (see `Reconcile`).

        Raises: Invalid (code `tool_reconcile_wrong`) when there is one already or its parameters do not fit.
        """
        if self.reconcile is not None:
            raise Invalid("tool_reconcile_wrong", f"tool {self.name!r} has a reconcile function already")
        takes_arguments(self.name, function)
        # The one change after construction: the function can only be written below the tool it belongs to.
        object.__setattr__(self, "reconcile", function)
        return function


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect | str = Effect.ONCE,
    doubt: Doubt | str = Doubt.TELL,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    approval: Approval = False,
    reconcile: Reconcile | None = None,
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...


def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect | str = Effect.ONCE,
    doubt: Doubt | str = Doubt.TELL,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    approval: Approval = False,
    reconcile: Reconcile | None = None,
) -> Any:
    """Make a function a tool: `@tool` or `@tool(effect="read", timeout_s=5)`.

    Name and description come from the function unless given; the schema from its type hints and the `Args:`
    of its docstring. `timeout_s` None means no limit. A sync function runs in a thread, which goes on when nobody
    waits any more; while it does, `reconcile` is not asked. An async tool that hands work to a thread of its own
    must await that thread's end also when it is cancelled, or `reconcile` may be asked too early.

    Raises: Invalid (codes `tool_name`, `tool_signature`, `tool_option`, `tool_reconcile_wrong`).
    """

    def make(target: Callable[..., Any]) -> Tool[Any, Any]:
        if isinstance(target, Tool):
            raise Invalid("tool_option", f"{target.name!r} is a tool already; decorate the function once")
        doc = parse_docstring(inspect.getdoc(target))
        given_name = _checked_name(name or str(getattr(target, "__name__", type(target).__name__)))
        if reconcile is not None:
            takes_arguments(given_name, reconcile)
        return Tool(
            name=given_name,
            description=description if description is not None else doc.text,
            function=target,
            parameters=arguments_of(given_name, target, doc.arguments),
            effect=_option(given_name, "effect", Effect, effect),
            doubt=_option(given_name, "doubt", Doubt, doubt),
            timeout_s=_checked_limit(given_name, timeout_s),
            approval=approval,
            reconcile=reconcile,
        )

    return make if function is None else make(function)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Invalid(
            "tool_name", f"tool name {name!r} must be 1 to 64 of A-Z a-z 0-9 _ -; give one with @tool(name=...)"
        )
    return name


def _checked_limit(name: str, timeout_s: float | None) -> float | None:
    if timeout_s is not None and not timeout_s > 0:
        raise Invalid("tool_option", f"tool {name!r}: timeout_s must be above 0, or None for no limit; got {timeout_s}")
    return timeout_s


O = TypeVar("O", Effect, Doubt)  # noqa: E741 - an option


def _option(name: str, option: str, kind: type[O], value: O | str) -> O:
    try:
        return kind(value)
    except ValueError as error:
        choices = ", ".join(repr(str(member)) for member in kind)
        raise Invalid("tool_option", f"tool {name!r}: {option} must be one of {choices}; got {value!r}") from error
