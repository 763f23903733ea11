"""All doors to one sidecar."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from perdure.clock import Clock
from perdure.sidecar.certain import SETTLE_S
from perdure.sidecar.dapr.bus import DaprBus
from perdure.sidecar.dapr.channel import DaprAddress, SidecarChannel
from perdure.sidecar.dapr.chat import DaprChat
from perdure.sidecar.dapr.engine import CONNECT_TIMEOUT_S, DaprEngine
from perdure.sidecar.dapr.invoker import DaprInvoker
from perdure.sidecar.dapr.jobs import DaprJobs
from perdure.sidecar.dapr.secrets import DaprSecrets
from perdure.sidecar.dapr.store import CALL_TIMEOUT_S, DaprStateStore
from perdure.sidecar.ports import Doors


class DaprSidecar:
    """Builds `Doors` from component names over one shared connection; `async with` closes it.

    Neither building nor entering touches the network: a sidecar that is away shows at the first call.
    """

    def __init__(
        self,
        address: DaprAddress,
        *,
        stores: Sequence[str],
        buses: Sequence[str] = (),
        store_timeout_s: float = CALL_TIMEOUT_S,
        settle_s: float = SETTLE_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        clock: Clock | None = None,
    ) -> None:
        self.channel = SidecarChannel(address)
        self._invoker = DaprInvoker(address)
        self.doors = Doors(
            stores={
                name: DaprStateStore(self.channel, name, call_timeout_s=store_timeout_s, settle_s=settle_s, clock=clock)
                for name in stores
            },
            buses={name: DaprBus(self.channel, name) for name in buses},
            engine=DaprEngine(self.channel, connect_timeout_s=connect_timeout_s),
            invoker=self._invoker,
            jobs=DaprJobs(self.channel),
            chat=DaprChat(self.channel),
            secrets=DaprSecrets(self.channel),
        )

    async def __aenter__(self) -> Doors:
        return self.doors

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._invoker.close()
        await self.channel.close()
