"""The runs that last, in an index: Dapr lists no keys. Written when a run gets its host and when it ends."""

from __future__ import annotations

import zlib

from pydantic import TypeAdapter

from perdure.sidecar.ports import StateStore
from perdure.state.document import Document
from perdure.types import JsonObject, RunId

SHARDS = 16
"""Sixteen documents keep each below the size where rewriting it costs more than a commit, up to some
thousand waiting runs, and let as many runs be hosted at once without meeting."""

_RUNS: TypeAdapter[dict[RunId, JsonObject]] = TypeAdapter(dict[RunId, JsonObject])


class RunIndex:
    """Run id → what a sweep needs to know of it. A view: rebuilt from the logs that replicas list."""

    def __init__(self, store: StateStore, prefix: str, app_id: str) -> None:
        self._store = store
        self._prefix = f"{prefix}runs/{app_id}/"

    async def add(self, run: RunId, entry: JsonObject) -> None:
        """List `run`, or change its entry."""
        await self._shard(run).update(lambda runs: {**runs, run: entry})

    async def remove(self, run: RunId) -> None:
        """Unlist `run`; unknown is fine."""
        await self._shard(run).update(lambda runs: {key: entry for key, entry in runs.items() if key != run})

    async def all(self) -> dict[RunId, JsonObject]:
        """Every listed run."""
        found = await self._store.get_many([f"{self._prefix}{shard}" for shard in range(SHARDS)])
        return {run: entry for item in found.values() for run, entry in _RUNS.validate_json(item.value).items()}

    def _shard(self, run: RunId) -> Document[dict[RunId, JsonObject]]:
        return Document(self._store, f"{self._prefix}{zlib.crc32(run.encode()) % SHARDS}", _RUNS, {})
