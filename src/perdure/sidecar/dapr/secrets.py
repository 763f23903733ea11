"""A secret store component."""

from __future__ import annotations

from dapr.proto.runtime.v1.secret_pb2 import GetSecretRequest
from grpc import StatusCode
from grpc.aio import AioRpcError

from perdure.errors import NotFound
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.translation import definite, translated

CALL_TIMEOUT_S = 5.0


class DaprSecrets:
    """Secrets by store component and name."""

    def __init__(self, channel: SidecarChannel, *, call_timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._channel = channel
        self._timeout_s = call_timeout_s

    async def get(self, store: str, name: str) -> str:
        request = GetSecretRequest(store_name=store, key=name)
        try:
            reply = await self._channel.stub.GetSecret(
                request, timeout=self._timeout_s, metadata=self._channel.metadata
            )
        except AioRpcError as error:
            # Stores answer INTERNAL for a secret they do not have, as for any failure of theirs.
            if error.code() is StatusCode.INTERNAL and "not found" in (error.details() or "").lower():
                raise _unknown(store, name) from error
            raise definite(error, "secret store", store) or translated(error, "secret store", store) from error
        text = reply.data.get(name) or next(iter(reply.data.values()), "")
        if not text:
            raise _unknown(store, name)
        return str(text)


def _unknown(store: str, name: str) -> NotFound:
    return NotFound("secret_unknown", f"secret {name!r} is not in secret store {store!r}; add it there", store=store)
