"""The host: the only code that a workflow engine replays, and the only part of perdure that must never change shape."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from perdure.sidecar.ports import Again, Drive, HostBody, HostStep, Pause
from perdure.types import JsonObject


def host_body(rounds: int) -> HostBody:
    """A host that starts its history anew every `rounds` rounds, so that replay stays short."""

    def host(input: JsonObject) -> Generator[HostStep, Any, JsonObject]:
        for _ in range(rounds):
            outcome: JsonObject = yield Drive(input)
            if outcome["done"]:
                return outcome
            seconds = outcome["seconds"]
            yield Pause(float(seconds) if isinstance(seconds, int | float) else None)
        yield Again(input)
        return {"done": False}

    return host


def host_instance(run_id: str, generation: int) -> str:
    """The instance's id; a generation is never used twice, so neither is the id."""
    return f"{run_id}-{generation}"
