"""A state store component, on the bare generated stub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dapr.proto.common.v1.common_pb2 import Etag, StateItem, StateOptions
from dapr.proto.runtime.v1.metadata_pb2 import GetMetadataRequest
from dapr.proto.runtime.v1.state_pb2 import (
    DeleteStateRequest,
    GetBulkStateRequest,
    GetStateRequest,
    SaveStateRequest,
)
from grpc import StatusCode
from grpc.aio import AioRpcError

from perdure.clock import Clock
from perdure.errors import SidecarUnavailable
from perdure.sidecar.certain import SETTLE_S, CertainStore, Unsure
from perdure.sidecar.dapr.batch import Batcher
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.translation import definite, details, translated
from perdure.sidecar.ports import Item

CALL_TIMEOUT_S = 2.0
"""A write takes 1 ms; one that took 2,000 is better asked about than waited for."""

PAGE_KEYS = 64
PARALLELISM = 10
STRONG = StateOptions.StateConsistency.CONSISTENCY_STRONG
FIRST_WRITE = StateOptions(concurrency=StateOptions.StateConcurrency.CONCURRENCY_FIRST_WRITE, consistency=STRONG)
LAST_WRITE = StateOptions(concurrency=StateOptions.StateConcurrency.CONCURRENCY_LAST_WRITE, consistency=STRONG)


class DaprRawStore:
    """Says `Unsure` of every write that the component refused or did not confirm.

    The component's own word is not taken for it: `state.redis` and `state.postgresql` refuse a
    create with INTERNAL, `state.sqlite` and `state.in-memory` with ABORTED.
    """

    def __init__(self, channel: SidecarChannel, name: str, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.name = name
        self._channel = channel
        self._metadata = channel.metadata
        self._timeout_s = call_timeout_s
        self._etag_creates: bool | None = None
        self._batcher = Batcher(self._save_all)

    async def get(self, key: str) -> Item | None:
        request = GetStateRequest(store_name=self.name, key=key, consistency=STRONG)
        try:
            reply = await self._channel.stub.GetState(request, timeout=self._timeout_s, metadata=self._metadata)
        except AioRpcError as error:
            raise translated(error, "state store", self.name) from error
        return Item(reply.data, reply.etag) if reply.etag else None

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        found: dict[str, Item] = {}
        waiting = list(dict.fromkeys(keys))
        page = PAGE_KEYS
        while waiting:
            batch = waiting[:page]
            try:
                found.update(await self._bulk(batch))
            except AioRpcError as error:
                if error.code() is not StatusCode.RESOURCE_EXHAUSTED or len(batch) == 1:
                    raise translated(error, "state store", self.name) from error
                # The answer would exceed the sidecar's message limit: ask for fewer from here on.
                page = max(1, len(batch) // 4)
            else:
                del waiting[: len(batch)]
        return found

    async def _bulk(self, keys: Sequence[str]) -> dict[str, Item]:
        request = GetBulkStateRequest(
            store_name=self.name, keys=keys, parallelism=PARALLELISM, metadata={"consistency": "strong"}
        )
        reply = await self._channel.stub.GetBulkState(request, timeout=self._timeout_s, metadata=self._metadata)
        found = {}
        for item in reply.items:
            if item.error:
                raise SidecarUnavailable(
                    "component_unavailable", f"state store {self.name!r} could not read {item.key!r}: {item.error}"
                )
            if item.etag:
                found[item.key] = Item(item.data, item.etag)
        return found

    async def create(self, key: str, value: bytes) -> None:
        await self._save(StateItem(key=key, value=value, options=FIRST_WRITE))

    async def put(self, key: str, value: bytes, etag: str | None) -> None:
        if etag is None:
            await self._overwrite(key, value)
            return
        await self._refuse_absent(key, etag)
        await self._save(StateItem(key=key, value=value, etag=Etag(value=etag), options=FIRST_WRITE))

    async def _overwrite(self, key: str, value: bytes) -> None:
        """`state.redis` refuses an unconditional write of a key that was ever written first-write.

        So a key that is overwritten often is best never created, only put: one call instead of three.
        """
        try:
            await self._save(StateItem(key=key, value=value, options=LAST_WRITE))
        except Unsure:
            found = await self.get(key)
            if found is None or found.value == value:
                raise
            await self._save(StateItem(key=key, value=value, etag=Etag(value=found.etag), options=FIRST_WRITE))

    async def delete(self, key: str, etag: str | None) -> None:
        request = DeleteStateRequest(store_name=self.name, key=key, options=LAST_WRITE)
        if etag is not None:
            request.etag.value = etag
            request.options.CopyFrom(FIRST_WRITE)
        await self._write(self._channel.stub.DeleteState, request)

    async def check(self) -> None:
        await self.get("perdure-check")

    async def _save(self, item: StateItem) -> None:
        await self._batcher.save(item)

    async def _save_all(self, items: Sequence[StateItem]) -> None:
        await self._write(self._channel.stub.SaveState, SaveStateRequest(store_name=self.name, states=items))

    async def _write(self, call: Any, request: Any) -> None:
        try:
            await call(request, timeout=self._timeout_s, metadata=self._metadata)
        except AioRpcError as error:
            certain = definite(error, "state store", self.name)
            if certain is not None:
                raise certain from error
            raise Unsure(details(error)) from error

    async def _refuse_absent(self, key: str, etag: str) -> None:
        """`state.redis` creates a missing key under any etag, so there the key is looked at first.

        What remains possible on Redis alone: a delete between this look and the write is undone by it.
        """
        if await self._creates_under_any_etag():
            found = await self.get(key)
            if found is None or found.etag != etag:
                raise Unsure("the etag is not the stored one")

    async def _creates_under_any_etag(self) -> bool:
        if self._etag_creates is None:
            try:
                reply = await self._channel.stub.GetMetadata(
                    GetMetadataRequest(), timeout=self._timeout_s, metadata=self._metadata
                )
            except AioRpcError as error:
                raise translated(error, "state store", self.name) from error
            kinds = {component.name: component.type for component in reply.registered_components}
            self._etag_creates = kinds.get(self.name, "state.redis") == "state.redis"
        return self._etag_creates


class DaprStateStore(CertainStore):
    """The `StateStore` behind component `name` of the sidecar."""

    def __init__(
        self,
        channel: SidecarChannel,
        name: str,
        *,
        call_timeout_s: float = CALL_TIMEOUT_S,
        settle_s: float = SETTLE_S,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(DaprRawStore(channel, name, call_timeout_s=call_timeout_s), settle_s=settle_s, clock=clock)
