"""A state store that is counted and traced. The store behind it knows nothing of that."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from perdure.clock import Clock
from perdure.errors import Conflict, PerdureError
from perdure.observability.metrics import Metrics
from perdure.observability.names import Attribute, SpanName
from perdure.observability.tracing import Tracer
from perdure.sidecar.ports import Item, StateStore


class ObservedStore:
    """The same `StateStore`, with metrics of its writes and, while tracing, a span for each call."""

    def __init__(self, store: StateStore, *, metrics: Metrics, tracer: Tracer, clock: Clock) -> None:
        self.name = store.name
        self.check = store.check
        self._store = store
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._reading = f"{SpanName.STORE_READ} {store.name}"
        self._writing = f"{SpanName.STORE_WRITE} {store.name}"

    async def get(self, key: str) -> Item | None:
        with self._tracer.span(self._reading, {Attribute.STORE: self.name}):
            return await self._store.get(key)

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        with self._tracer.span(self._reading, {Attribute.STORE: self.name, Attribute.ITEMS: len(keys)}):
            return await self._store.get_many(keys)

    async def create(self, key: str, value: bytes) -> None:
        await self._write(self._store.create(key, value), len(value))

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        await self._write(self._store.put(key, value, etag=etag), len(value))

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        await self._write(self._store.delete(key, etag=etag), 0)

    async def _write(self, writing: Awaitable[None], size: int) -> None:
        outcome = "written"
        began = self._clock.monotonic()
        try:
            with self._tracer.span(self._writing, {Attribute.STORE: self.name}):
                await writing
        except PerdureError as error:
            outcome = error.code
            if isinstance(error, Conflict):
                self._metrics.conflicts.add(1, store=self.name)
            raise
        finally:
            self._metrics.store_writes.add(1, store=self.name, outcome=outcome)
            self._metrics.store_write_seconds.observe(self._clock.monotonic() - began, store=self.name)
            self._metrics.store_write_bytes.add(size, store=self.name)
