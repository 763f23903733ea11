"""Pub/sub in this process: a broker, and one `Bus` per app on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from perdure.clock import Clock, SystemClock
from perdure.errors import Invalid, NotFound
from perdure.sidecar.memory.tasks import OwnedTasks
from perdure.sidecar.memory.undelivered import Undelivered
from perdure.sidecar.ports import BusHandler, Delivery, Envelope, StateStore

log = logging.getLogger(__name__)


class MemoryBroker:
    """What the apps of one process publish to. A message waits for an app that declared its topic but is not open."""

    def __init__(self) -> None:
        self._members: list[MemoryBus] = []

    def join(self, bus: MemoryBus) -> None:
        self._members.append(bus)

    async def spread(self, message: Envelope) -> None:
        """Hand `message` to one bus of every app that subscribed to its topic."""
        reached: dict[str, list[MemoryBus]] = {}
        for member in self._members:
            if message.topic in member.subscriptions:
                reached.setdefault(member.app_id, []).append(member)
        for replicas in reached.values():
            alive = [bus for bus in replicas if bus.is_open] or replicas
            await alive[sum(message.id.encode()) % len(alive)].accept(message)


class MemoryBus:
    """One app's view of a broker; open it to receive.

    At-least-once while the process lives; with a `journal`, also for what a process left undelivered.
    """

    def __init__(
        self,
        name: str = "bus",
        *,
        app_id: str = "local",
        broker: MemoryBroker | None = None,
        clock: Clock | None = None,
        max_deliveries: int = 5,
        redeliver_after_s: float = 0.1,
        journal: StateStore | None = None,
    ) -> None:
        self.name = name
        self.app_id = app_id
        self._broker = broker or MemoryBroker()
        self._broker.join(self)
        self._clock: Clock = clock or SystemClock()
        self._max_deliveries = max_deliveries
        self._redeliver_after_s = redeliver_after_s
        self._handlers: dict[str, tuple[BusHandler, str | None]] = {}
        self._undelivered = Undelivered(journal, f"bus/{name}/{app_id}")
        self._tasks = OwnedTasks()

    async def __aenter__(self) -> MemoryBus:
        await self._tasks.__aenter__()
        for message in await self._undelivered.all():
            self._begin(message)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._tasks.__aexit__(None, None, None)

    @property
    def is_open(self) -> bool:
        """Whether messages reach their handlers now."""
        return self._tasks.open

    @property
    def subscriptions(self) -> Mapping[str, str | None]:
        return {topic: dead_letter for topic, (_, dead_letter) in self._handlers.items()}

    def subscribe(self, topic: str, handler: BusHandler, *, dead_letter: str | None = None) -> None:
        if topic in self._handlers:
            raise Invalid("topic_taken", f"topic {topic!r} of bus {self.name!r} has a handler already; give it one")
        self._handlers[topic] = (handler, dead_letter)

    async def publish(self, message: Envelope) -> None:
        await self._broker.spread(message)

    async def deliver(self, envelope: Envelope) -> Delivery:
        declared = self._handlers.get(envelope.topic)
        if declared is None:
            raise NotFound(
                "topic_unknown",
                f"topic {envelope.topic!r} of bus {self.name!r} has no handler; declared: {sorted(self._handlers)}",
            )
        handler, _ = declared
        try:
            return await handler(envelope)
        except Exception:  # a handler may raise anything; the door's contract turns it into RETRY
            log.exception("handler of topic %s failed; the message is delivered again", envelope.topic)
            return Delivery.RETRY

    async def accept(self, message: Envelope) -> None:
        """Take a message from the broker: deliver it now, or when the bus opens."""
        await self._undelivered.add(message)
        if self.is_open:
            self._begin(message)

    def _begin(self, message: Envelope) -> None:
        if message.topic in self._handlers:
            self._tasks.spawn(self._bring(message), name=f"bus {self.name} {message.topic} {message.id}")

    async def _bring(self, message: Envelope) -> None:
        verdict = await self.deliver(message)
        for attempt in range(self._max_deliveries - 1):
            if verdict is not Delivery.RETRY:
                break
            await self._clock.sleep(self._redeliver_after_s * 2**attempt)
            verdict = await self.deliver(message)
        if verdict is not Delivery.SUCCESS:
            dead_letter = self.subscriptions[message.topic]
            log.warning("message %s of topic %s was given up; dead letter: %s", message.id, message.topic, dead_letter)
            if dead_letter is not None:
                await self._broker.spread(replace(message, topic=dead_letter))
        await self._undelivered.remove(message)
