"""What a handler may know about its call, and the state and memory it works on."""

from __future__ import annotations

import copy
import re
from typing import Any

import orjson

from perdure.clock import Clock, rfc3339
from perdure.errors import Invalid, NotFound
from perdure.pipeline.record import Change, Kept, Record, RecordBook

STATE = "state"
"""The memory key under which the state is read (SP-11)."""

_MISSING = object()
_MEMORY_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class StepContext:
    """Handed to `async def step(message, context)`.

    `key` stays the same whatever happens to the call, so pass it on to what must not happen twice. `attempt` is 1 for
    the first attempt; `fence` grows with every takeover of the run.

    Changes of state and memory are kept with the handler's answer, by one write, or not at all; reading sees them.
    """

    def __init__(
        self, step: str, *, key: str, run: str, attempt: int, fence: int, clock: Clock, record: Record, book: RecordBook
    ) -> None:
        self.step = step
        self.key = key
        self.run = run
        self.attempt = attempt
        self.fence = fence
        self.changes: list[Change] = []
        self.fresh: dict[str, Any] = {}
        self._clock = clock
        self._began = clock.monotonic()
        self._record = record
        self._book = book
        self._state: dict[str, Any] = copy.deepcopy(record.state)

    @property
    def changed(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self.changes or self.fresh)

    def now(self) -> str:
        """The wall clock, RFC 3339 UTC."""
        return rfc3339(self._clock.now())

    def elapsed_s(self) -> float:
        """Seconds since this call of the handler began."""
        return self._clock.monotonic() - self._began

    async def get_state(self) -> dict[str, Any]:
        """A copy of the agent's state; `{}` when there is none (SP-9)."""
        return copy.deepcopy(self._state)

    async def update_state(self, **fields: Any) -> None:
        """Merge fields into the state (SP-10). Raises: Invalid (`state_not_json`)."""
        given = _plain("state", fields)
        await self.update_state_with(lambda state: {**state, **given})

    async def update_state_with(self, change: Change) -> None:
        """Replace the state by `change(state)`; `change` is pure and may be asked again on a newer state."""
        self._state = _plain("state", change(copy.deepcopy(self._state)))
        self.changes.append(change)

    async def get_memory(self, key: str, default: Any = _MISSING) -> Any:
        """The memory entry `key`. Raises: NotFound (a KeyError, `memory_unknown`) when missing without `default`."""
        if key == STATE:
            return await self.get_state()
        if key in self.fresh:
            return copy.deepcopy(self.fresh[key])
        kept = await self._book.memory(self._record, key)
        return memory_value(key, kept, default)

    async def set_memory(self, key: str, value: Any) -> None:
        """Keep `value` (JSON) under `key`. Raises: Invalid (`memory_key`, `state_not_json`)."""
        if key == STATE:
            if not isinstance(value, dict):
                raise Invalid("memory_key", "memory 'state' is the agent's state and must be an object")
            given = _plain(STATE, value)
            await self.update_state_with(lambda _: given)
            return
        self.fresh[checked_memory_key(key)] = _plain(f"memory {key!r}", value)


def checked_memory_key(key: str) -> str:
    """`key`, if it may name a memory entry. Raises: Invalid (`memory_key`)."""
    if not _MEMORY_KEY.fullmatch(key):
        raise Invalid("memory_key", f"memory key {key!r} must be 1 to 128 letters, digits, '_', '.', ':' or '-'")
    return key


def memory_value(key: str, kept: Kept | None, default: Any = _MISSING) -> Any:
    """The value, or `default`. Raises: NotFound (`memory_unknown`)."""
    if kept is not None:
        return copy.deepcopy(kept.value)
    if default is _MISSING:
        raise NotFound("memory_unknown", f"memory {key!r} is not set; pass a default to get one instead")
    return default


def applied(changes: list[Change], state: dict[str, Any]) -> dict[str, Any]:
    """The state after all changes."""
    for change in changes:
        state = change(copy.deepcopy(state))
    return state


def _plain(what: str, value: Any) -> Any:
    """`value` as plain JSON, detached from the caller's objects."""
    try:
        return orjson.loads(orjson.dumps(value))
    except TypeError as error:
        raise Invalid("state_not_json", f"{what} cannot be kept as JSON: {error}") from error
