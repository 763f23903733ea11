"""The floor: the same number of bare 1 KiB writes through the same sidecar, from the generated client alone."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import grpc.aio
from dapr.proto.common.v1.common_pb2 import StateItem, StateOptions
from dapr.proto.runtime.v1.dapr_pb2_grpc import DaprStub
from dapr.proto.runtime.v1.metadata_pb2 import GetMetadataRequest
from dapr.proto.runtime.v1.state_pb2 import SaveStateRequest

from benchmarks.bench import STORE

SIZE = 1024
FIRST_WRITE = StateOptions(
    concurrency=StateOptions.StateConcurrency.CONCURRENCY_FIRST_WRITE,
    consistency=StateOptions.StateConsistency.CONSISTENCY_STRONG,
)


class Floor:
    """Bare calls."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self._value = os.urandom(SIZE // 2).hex().encode()
        self._count = 0
        self._name = uuid4().hex

    async def write(self) -> None:
        """Create one new key."""
        self._count += 1
        key = f"bare/{self._name}/{self._count:010d}"
        item = StateItem(key=key, value=self._value, options=FIRST_WRITE)
        await self._stub.SaveState(SaveStateRequest(store_name=STORE, states=(item,)), timeout=5.0)

    async def writes(self, number: int) -> None:
        """One after the other."""
        for _ in range(number):
            await self.write()

    async def hop(self) -> None:
        """To the sidecar and back."""
        await self._stub.GetMetadata(GetMetadataRequest(), timeout=5.0)


@asynccontextmanager
async def floor(address: str) -> AsyncIterator[Floor]:
    """A connection of its own to the sidecar at `address`."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Floor(DaprStub(channel))  # type: ignore[no-untyped-call]
