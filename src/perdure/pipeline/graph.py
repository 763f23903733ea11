"""Which step depends on which. Pure data: recorded when a run begins, so that a run keeps its graph."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import TypeAdapter

from perdure.effect import Effect
from perdure.errors import Invalid
from perdure.types import Json

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Names stand in paths, keys and logs."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step as the run knows it. `app` empty: it runs in the process that drives the run.

    `max_retries` repetitions follow a failed first call, the first after `retry_delay_s`, each later one after twice
    as long. `timeout_s` limits one call.
    """

    name: str
    depends_on: tuple[str, ...] = ()
    app: str = ""
    effect: Effect = Effect.ONCE
    max_retries: int = 0
    retry_delay_s: float = 1.0
    timeout_s: float = 300.0


Graph = tuple[StepSpec, ...]

_GRAPH: TypeAdapter[Graph] = TypeAdapter(Graph)


def dump_graph(graph: Graph) -> Json:
    """The graph as JSON, for the log."""
    dumped: Json = _GRAPH.dump_python(graph, mode="json")
    return dumped


def load_graph(recorded: Json) -> Graph:
    """The graph that `dump_graph` wrote."""
    return _GRAPH.validate_python(recorded)


def check_name(what: str, name: str) -> str:
    """`name`, if it may name a pipeline or a step. Raises: Invalid (`name_malformed`)."""
    if not NAME.fullmatch(name):
        raise Invalid(
            "name_malformed",
            f"{what} name {name!r} must be 1 to 64 letters, digits, '_' or '-', beginning with a letter or digit",
        )
    return name


def check_graph(pipeline: str, specs: Sequence[StepSpec]) -> Graph:
    """The steps, if they can be run. Raises: Invalid (`pipeline_empty`, `dependency_unknown`, `dependency_cycle`)."""
    if not specs:
        raise Invalid("pipeline_empty", f"pipeline {pipeline!r} has no steps; declare one with @{pipeline}.step()")
    known = {spec.name: spec for spec in specs}
    for spec in specs:
        for needed in spec.depends_on:
            if needed not in known:
                raise _unknown(pipeline, spec.name, needed, known)
    cycle = _cycle(known)
    if cycle:
        path = " -> ".join(cycle)
        raise Invalid(
            "dependency_cycle",
            f"pipeline {pipeline!r} can never finish: {path} depend on each other; remove one of these dependencies",
            path=path,
        )
    return tuple(specs)


def _unknown(pipeline: str, step: str, needed: str, known: Iterable[str]) -> Invalid:
    close = difflib.get_close_matches(needed, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"declared: {', '.join(known)}"
    return Invalid(
        "dependency_unknown",
        f"step {step!r} of pipeline {pipeline!r} depends on {needed!r}, which is not declared; {hint}",
        path=f"{step} -> {needed}",
    )


def _cycle(known: Mapping[str, StepSpec]) -> list[str]:
    """One cycle as a path that ends where it began (`a -> b` reads: a depends on b), or nothing."""
    settled: set[str] = set()
    for start in known:
        path: list[str] = []
        stack = [(start, iter(known[start].depends_on))] if start not in settled else []
        if stack:
            path.append(start)
        while stack:
            name, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                settled.add(name)
                stack.pop()
                path.pop()
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following not in settled:
                stack.append((following, iter(known[following].depends_on)))
                path.append(following)
    return []
