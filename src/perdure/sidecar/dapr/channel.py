"""The one connection to the sidecar that all doors share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import grpc.aio
from dapr.proto.runtime.v1.dapr_pb2_grpc import DaprStub

UNLIMITED = -1
CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    # The sidecar bounds messages itself; a second, lower bound here would only hide its answer.
    ("grpc.max_receive_message_length", UNLIMITED),
    ("grpc.max_send_message_length", UNLIMITED),
    # A sidecar that was restarted is found again within a fifth of a second; the default is up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
    # Channels to the same address must not share a connection: replicas in one process would die together.
    ("grpc.use_local_subchannel_pool", 1),
    # A proxy from the environment is never between an app and its own sidecar.
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class DaprAddress:
    """Where the sidecar listens. `grpc` is `host:port`, `http` a base URL; the token is sent when not empty."""

    grpc: str = "127.0.0.1:50001"
    http: str = "http://127.0.0.1:3500"
    api_token: str = field(default="", repr=False)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("dapr-api-token", self.api_token),) if self.api_token else ()


class SidecarChannel:
    """A lazily opened gRPC channel; it reconnects by itself for as long as it is not closed."""

    def __init__(self, address: DaprAddress) -> None:
        self.address = address
        self.metadata = address.metadata
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None

    @property
    def stub(self) -> Any:
        """The generated stub. Its first use must be on the event loop that will use it, and does not block."""
        if self._stub is None:
            self._channel = grpc.aio.insecure_channel(self.address.grpc, options=CHANNEL_OPTIONS)
            self._stub = DaprStub(self._channel)  # type: ignore[no-untyped-call]
        return self._stub

    async def close(self) -> None:
        """End the connection and every call on it; the next use opens a new one."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()
