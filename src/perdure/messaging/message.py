"""What a handler receives: one message, and with it all that it depends on (ST-16, ST-19)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from perdure.types import Json, JsonObject


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message that arrived: `content` is its data as JSON text, `received_at` RFC 3339 UTC, taken once."""

    source: str
    content: str
    id: str
    received_at: str

    @property
    def data(self) -> Json:
        """The payload."""
        value: Json = orjson.loads(self.content)
        return value

    def shown(self) -> JsonObject:
        """The message as a handler sees it."""
        return {"source": self.source, "data": self.data, "id": self.id, "received_at": self.received_at}


def joined(arrivals: Sequence[Arrival]) -> JsonObject:
    """The argument of a handler: the message that came last, with all of them by source.

    `arrivals` are in the order of arrival and not empty. A message from outside (a run's input) is no dependency:
    its source is empty, and `dependency_messages` does not list it.
    """
    return {**arrivals[-1].shown(), "dependency_messages": {a.source: a.shown() for a in arrivals if a.source}}
