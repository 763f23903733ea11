"""What a request for a run becomes: a new run, or one that its key has begun already. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from perdure.errors import Conflict, Invalid
from perdure.pipeline.graph import Graph, dump_graph
from perdure.pipeline.state import PipelineState
from perdure.run.event import Accepted, Event
from perdure.run.plan import View
from perdure.types import Json

MAX_KEY_CHARS = 256


@dataclass(frozen=True, slots=True)
class Order:
    """One run of a pipeline with this input. `kind` is the registered key; the graph is recorded with the run."""

    kind: str
    graph: Graph
    input: Json
    key: str
    by: str = ""
    trace: str = ""

    @property
    def digest(self) -> str:
        """Of what the key stands for. The graph is not part of it: a new release changes no key's meaning."""
        text = orjson.dumps(self.input, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(text, digest_size=16).hexdigest()


def checked_key(key: str) -> str:
    """`key`, if it may name a run. Raises: Invalid (`key_malformed`)."""
    if not 0 < len(key) <= MAX_KEY_CHARS or not key.isprintable():
        raise Invalid("key_malformed", f"a key has 1 to {MAX_KEY_CHARS} printable characters")
    return key


def accept(order: Order, view: View[PipelineState]) -> Sequence[Event] | int:
    """The events to append, or the number of the run to join.

    Raises: Conflict (`key_reused`) when the key stands for another input.
    """
    use = view.control.keys.get(order.key)
    if use is None:
        payload = {"input": order.input, "graph": dump_graph(order.graph)}
        return [Accepted(order.kind, payload, order.key, order.digest, order.by, order.trace)]
    if use.digest != order.digest:
        raise Conflict("key_reused", f"key {order.key!r} was used for another input; use a new key for a new run")
    return use.run
