"""A document: one typed JSON value in a state store, changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from perdure.errors import Broken, Conflict
from perdure.sidecar.ports import StateStore

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """A value with the mark of the version it was read at; `etag` is None when nothing is stored yet."""

    value: T
    etag: str | None


class Document(Generic[T]):
    """One JSON value under `key`; what is not there yet reads as `initial`."""

    def __init__(self, store: StateStore, key: str, schema: TypeAdapter[T], initial: T) -> None:
        self.key = key
        self._store = store
        self._schema = schema
        self._initial = initial

    async def load(self) -> Stored[T]:
        """The newest value. Raises: Broken (`document_unreadable`) when what is stored does not fit the type."""
        item = await self._store.get(self.key)
        if item is None:
            return Stored(self._initial, None)
        try:
            return Stored(self._schema.validate_json(item.value), item.etag)
        except ValidationError as error:
            raise Broken(
                "document_unreadable",
                f"document {self.key!r} in {self._store.name!r} does not have the expected shape; "
                "a newer release wrote it, or somebody changed it by hand",
                problems=str(error),
            ) from error

    async def save(self, value: T, over: Stored[T]) -> None:
        """Replace exactly the version `over`. Raises: Conflict (others were faster), Transient (unknown outcome)."""
        data = self._schema.dump_json(value)
        if over.etag is None:
            await self._store.create(self.key, data)
        else:
            await self._store.put(self.key, data, etag=over.etag)

    async def update(self, change: Callable[[T], T]) -> T:
        """Replace the value by `change(value)`, a pure function that is asked again when somebody was faster.

        Returns what is stored now; when `change` returns its argument unchanged, nothing is written.
        Raises: Transient when the outcome is unknown, and whatever `change` raises (nothing is written then).
        """
        while True:
            stored = await self.load()
            value = change(stored.value)
            if value is stored.value or (stored.etag is not None and value == stored.value):
                return value
            try:
                await self.save(value, stored)
            except Conflict:
                continue
            return value
