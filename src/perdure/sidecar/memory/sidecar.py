"""All doors in one process, without Dapr."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from perdure.clock import Clock, SystemClock
from perdure.sidecar.memory.bus import MemoryBroker, MemoryBus
from perdure.sidecar.memory.chat import ChatFunction, MemoryChat
from perdure.sidecar.memory.engine import MemoryEngine
from perdure.sidecar.memory.invoker import MemoryInvoker
from perdure.sidecar.memory.jobs import MemoryJobs
from perdure.sidecar.memory.secrets import MemorySecrets
from perdure.sidecar.memory.store import MemoryStateStore
from perdure.sidecar.ports import Doors, StateStore


class MemoryNetwork:
    """What the apps and replicas of one process share: stores by app (or by name alone), brokers, addresses."""

    def __init__(
        self, *, shared_stores: Sequence[str] = (), new_store: Callable[[str], StateStore] = MemoryStateStore
    ) -> None:
        self._shared = frozenset(shared_stores)
        self._new_store = new_store
        self._stores: dict[tuple[str, str], StateStore] = {}
        self._brokers: dict[str, MemoryBroker] = {}
        self.apps: dict[str, Any] = {}

    def store(self, app_id: str, name: str) -> StateStore:
        """The store `name` as `app_id` sees it; replicas of an app see the same one."""
        place = ("" if name in self._shared else app_id, name)
        if place not in self._stores:
            self._stores[place] = self._new_store(name)
        return self._stores[place]

    def broker(self, name: str) -> MemoryBroker:
        """The broker behind the pub/sub component `name`."""
        return self._brokers.setdefault(name, MemoryBroker())


class MemorySidecar:
    """Builds `Doors` from component names. `async with sidecar.open() as doors` runs buses and jobs.

    `stores` given by value (for example a `FolderStateStore`) are used as they are; those given by
    name come from the network. With `engine_store`, hosts and undelivered messages survive the process.
    """

    def __init__(
        self,
        app_id: str = "local",
        *,
        stores: Sequence[str] | Mapping[str, StateStore] = (
            "conversationstore",
            "workflowstatestore",
            "agentstatestore",
        ),
        buses: Sequence[str] = ("messagepubsub",),
        network: MemoryNetwork | None = None,
        clock: Clock | None = None,
        engine_store: StateStore | None = None,
        chats: Mapping[str, ChatFunction] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.network = network or MemoryNetwork()
        clock = clock or SystemClock()
        self.stores: Mapping[str, StateStore] = (
            stores if isinstance(stores, Mapping) else {name: self.network.store(app_id, name) for name in stores}
        )
        self.buses = {
            name: MemoryBus(name, app_id=app_id, broker=self.network.broker(name), clock=clock, journal=engine_store)
            for name in buses
        }
        self.engine = MemoryEngine(clock=clock, store=engine_store)
        self.invoker = MemoryInvoker(self.network.apps)
        self.jobs = MemoryJobs(clock=clock)
        self.chat = MemoryChat(chats)
        self.secrets = MemorySecrets(secrets)

    @property
    def doors(self) -> Doors:
        """The doors as one value; buses and jobs deliver only inside `open`."""
        return Doors(
            stores=self.stores,
            buses=self.buses,
            engine=self.engine,
            invoker=self.invoker,
            jobs=self.jobs,
            chat=self.chat,
            secrets=self.secrets,
        )

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Doors]:
        """The doors, with messages and ticks delivered while open."""
        async with AsyncExitStack() as stack:
            for bus in self.buses.values():
                await stack.enter_async_context(bus)
            await stack.enter_async_context(self.jobs)
            yield self.doors
