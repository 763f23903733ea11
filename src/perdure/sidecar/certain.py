"""Certainty after an unknown outcome: read back, then decide. The only place that does so.

A store that was asked to write may refuse, fail, or write and lose the answer, and what it says
differs from product to product. So adapters do not interpret a failed write: they raise `Unsure`,
and `CertainStore` finds out what is there.

What can be promised:

- `create` is exact as long as nobody overwrites the key: one's own bytes are recognised, the
  identical bytes are sent again until the key is occupied, and a late first send changes nothing.
- `put` with an etag is exact unless its answer was lost *and* somebody overwrote it before the
  read-back; that looks the same as a refusal and is reported as `etag_stale`.
- `put` without an etag is repeated until it was written. A send that was thought lost may still
  land later, so it is for values whose newest writer does not matter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from perdure.clock import Clock, SystemClock
from perdure.errors import Conflict, SidecarUnavailable
from perdure.sidecar.ports import Item

SETTLE_S = 5.0
"""How long an unknown outcome is looked into: longer than a sidecar's restart, shorter than a caller's patience."""

PAUSES_S = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


class Unsure(Exception):
    """A write was refused, failed, or was done without an answer; the adapter cannot tell which."""


class RawStore(Protocol):
    """A store whose failed writes raise `Unsure`. Reads raise `SidecarUnavailable` as in the door."""

    name: str

    async def get(self, key: str) -> Item | None: ...

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]: ...

    async def create(self, key: str, value: bytes) -> None:
        """Write if absent; must never overwrite."""
        ...

    async def put(self, key: str, value: bytes, etag: str | None) -> None: ...

    async def delete(self, key: str, etag: str | None) -> None: ...

    async def check(self) -> None: ...


class CertainStore:
    """The `StateStore` over a `RawStore`."""

    def __init__(self, raw: RawStore, *, settle_s: float = SETTLE_S, clock: Clock | None = None) -> None:
        self.name = raw.name
        self._raw = raw
        self._settle_s = settle_s
        self._clock: Clock = clock or SystemClock()
        # Reads need no interpretation, so they go straight through.
        self.get = raw.get
        self.get_many = raw.get_many
        self.check = raw.check

    async def create(self, key: str, value: bytes) -> None:
        try:
            await self._raw.create(key, value)
        except Unsure as unsure:

            async def settled() -> bool:
                found = await self._raw.get(key)
                if found is None:
                    return False
                if found.value != value:
                    raise Conflict("key_taken", f"{key!r} in {self.name!r} is taken; read on", key=key)
                return True

            await self._settle(key, unsure, settled, lambda: self._raw.create(key, value))

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        try:
            await self._raw.put(key, value, etag)
        except Unsure as unsure:

            async def settled() -> bool:
                found = await self._raw.get(key)
                if found is not None and found.value == value:
                    return True
                self._refuse_stale(key, found, etag)
                return False

            await self._settle(key, unsure, settled, lambda: self._raw.put(key, value, etag))

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        try:
            await self._raw.delete(key, etag)
        except Unsure as unsure:

            async def settled() -> bool:
                found = await self._raw.get(key)
                if found is None:
                    return True
                self._refuse_stale(key, found, etag)
                return False

            await self._settle(key, unsure, settled, lambda: self._raw.delete(key, etag))

    def _refuse_stale(self, key: str, found: Item | None, etag: str | None) -> None:
        if etag is not None and (found is None or found.etag != etag):
            raise Conflict("etag_stale", f"{key!r} in {self.name!r} was changed; reload it", key=key)

    async def _settle(
        self,
        key: str,
        unsure: Unsure,
        settled: Callable[[], Awaitable[bool]],
        send_again: Callable[[], Awaitable[None]],
    ) -> None:
        deadline = self._clock.monotonic() + self._settle_s
        reason: Exception = unsure
        attempt = 0
        while True:
            try:
                if await settled():
                    return
                await send_again()
            except (Unsure, SidecarUnavailable) as again:
                reason = again
            else:
                return
            if self._clock.monotonic() >= deadline:
                break
            await self._clock.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            attempt += 1
        raise SidecarUnavailable(
            "write_unsettled",
            f"whether {key!r} in {self.name!r} was written is unknown after {self._settle_s:g} s ({reason}); "
            "repeat the identical call",
            key=key,
            store=self.name,
        ) from reason
