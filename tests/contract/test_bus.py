"""What every `Bus` promises."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from perdure.errors import Invalid, NotFound
from perdure.serving.cloudevent import parse_cloud_event
from perdure.sidecar.dapr.bus import DaprBus
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.memory import MemoryBroker, MemoryBus, MemoryStateStore
from perdure.sidecar.ports import Bus, Delivery, Envelope
from perdure.testing.clock import FakeClock

Opened = Callable[[Bus], AbstractAsyncContextManager[Bus]]


class Inbox:
    """A handler that keeps what it got and answers as told."""

    def __init__(self, *answers: Delivery | Exception) -> None:
        self.got: asyncio.Queue[Envelope] = asyncio.Queue()
        self._answers = list(answers)

    async def __call__(self, message: Envelope) -> Delivery:
        self.got.put_nowait(message)
        answer = self._answers.pop(0) if self._answers else Delivery.SUCCESS
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def next(self) -> Envelope:
        async with asyncio.timeout(20):
            return await self.got.get()


@pytest.fixture(params=["memory", pytest.param("dapr", marks=pytest.mark.sidecar)])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield MemoryBus("bus")
    else:
        channel = SidecarChannel(request.getfixturevalue("platform").address)
        yield DaprBus(channel, "bus")
        await channel.close()


@pytest.fixture
def opened(request: pytest.FixtureRequest, bus: Bus) -> Opened:
    """Delivers what arrives for the subscriptions declared on the bus, and gives the bus to publish on."""
    if isinstance(bus, MemoryBus):
        return lambda _: bus
    platform, listener = request.getfixturevalue("platform"), request.getfixturevalue("listener")

    @asynccontextmanager
    async def behind_a_sidecar(bus: Bus) -> AsyncIterator[Bus]:
        app_id = f"app-{secrets.token_hex(4)}"

        async def subscribed(_: bytes) -> tuple[int, Any]:
            entries = [
                {"pubsubname": "bus", "topic": topic, "route": f"/bus/{topic}", "deadLetterTopic": dead_letter or ""}
                for topic, dead_letter in bus.subscriptions.items()
            ]
            return 200, entries

        def arriving(topic: str) -> Callable[[bytes], Any]:
            async def arrived(body: bytes) -> tuple[int, Any]:
                return 200, {"status": (await bus.deliver(parse_cloud_event(body, topic))).value}

            return arrived

        listener.answers["/dapr/subscribe"] = subscribed
        for topic in bus.subscriptions:
            listener.answers[f"/bus/{topic}"] = arriving(topic)
        async with listener.listening():
            await asyncio.to_thread(platform.start_app_sidecar, app_id, listener.port)
            try:
                yield bus
            finally:
                await asyncio.to_thread(platform.kill_app_sidecar, app_id)

    return behind_a_sidecar


def message(topic: str, data: Any = None, **more: Any) -> Envelope:
    return Envelope(id=secrets.token_hex(8), source="/agents/weather", topic=topic, data=data, **more)


async def test_a_message_arrives_as_it_was_published(bus: Bus, opened: Opened) -> None:
    topic, inbox = f"topic-{secrets.token_hex(4)}", Inbox()
    bus.subscribe(topic, inbox)
    sent = message(
        topic,
        {"text": "Grüße", "n": [1, 2.5, None, True]},
        type="perdure.note.v1",
        trace_parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        extensions={"perduresession": "s-1"},
    )
    async with opened(bus):
        await bus.publish(sent)
        got = await inbox.next()
    assert (got.id, got.source, got.topic, got.data, got.type) == (sent.id, sent.source, topic, sent.data, sent.type)
    assert got.extensions["perduresession"] == "s-1"
    assert got.trace_parent.split("-")[1] == "0af7651916cd43dd8448eb211c80319c"


async def test_a_dropped_message_goes_to_the_dead_letter_topic(bus: Bus, opened: Opened) -> None:
    topic = f"topic-{secrets.token_hex(4)}"
    inbox, dead = Inbox(Delivery.DROP), Inbox()
    bus.subscribe(topic, inbox, dead_letter=f"{topic}-dead")
    bus.subscribe(f"{topic}-dead", dead)
    async with opened(bus):
        sent = message(topic, {"bad": True})
        await bus.publish(sent)
        assert (await inbox.next()).id == sent.id
        assert (await dead.next()).data == {"bad": True}


async def test_deliver_answers_what_the_handler_says_and_retry_when_it_raises(bus: Bus) -> None:
    bus.subscribe("topic", Inbox(Delivery.SUCCESS, Delivery.DROP, RuntimeError("no")))
    assert [await bus.deliver(message("topic")) for _ in range(3)] == [
        Delivery.SUCCESS,
        Delivery.DROP,
        Delivery.RETRY,
    ]


async def test_a_topic_has_one_handler(bus: Bus) -> None:
    bus.subscribe("topic", Inbox(), dead_letter="dead")
    with pytest.raises(Invalid):
        bus.subscribe("topic", Inbox())
    assert bus.subscriptions == {"topic": "dead"}


async def test_delivering_to_an_undeclared_topic_names_it(bus: Bus) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await bus.deliver(message("nowhere"))


@pytest.mark.sidecar
async def test_publishing_to_a_missing_component_names_it(platform: Any) -> None:
    channel = SidecarChannel(platform.address)
    with pytest.raises(NotFound, match="nobus"):
        await DaprBus(channel, "nobus").publish(message("t"))
    await channel.close()


# --- in memory -------------------------------------------------------------------------------------


async def test_a_handler_that_raises_gets_the_message_again_a_bounded_number_of_times() -> None:
    clock, inbox, dead = FakeClock(), Inbox(*[RuntimeError("no")] * 9), Inbox()
    async with MemoryBus("bus", clock=clock, max_deliveries=3) as bus:
        bus.subscribe("topic", inbox, dead_letter="dead")
        bus.subscribe("dead", dead)
        await bus.publish(message("topic"))
        await clock.advance(60)
    assert inbox.got.qsize() == 3
    assert dead.got.qsize() == 1


async def test_each_app_gets_a_copy_and_replicas_share_one() -> None:
    broker = MemoryBroker()
    buses = [MemoryBus("bus", app_id=app, broker=broker) for app in ("a", "a", "b")]
    inboxes = [Inbox() for _ in buses]
    for bus, inbox in zip(buses, inboxes, strict=True):
        bus.subscribe("topic", inbox)
    async with buses[0], buses[1], buses[2]:
        await buses[0].publish(message("topic"))
        await FakeClock().settle()
    counts = [inbox.got.qsize() for inbox in inboxes]
    assert counts[0] + counts[1] == 1
    assert counts[2] == 1


async def test_a_message_published_while_its_app_is_closed_waits_for_it() -> None:
    bus, inbox = MemoryBus("bus"), Inbox()
    bus.subscribe("topic", inbox)
    await bus.publish(message("topic"))
    assert inbox.got.empty()
    async with bus:
        await inbox.next()


async def test_with_a_journal_a_message_outlives_the_process_that_took_it() -> None:
    journal, stuck = MemoryStateStore(), asyncio.Event()

    async def never(_: Envelope) -> Delivery:
        stuck.set()
        await asyncio.Event().wait()
        return Delivery.SUCCESS

    first = MemoryBus("bus", journal=journal)
    first.subscribe("topic", never)
    sent = message("topic", {"n": 1}, extensions={"a": "b"})
    async with first:
        await first.publish(sent)
        await stuck.wait()
    second, inbox = MemoryBus("bus", journal=journal), Inbox()
    second.subscribe("topic", inbox)
    async with second:
        assert await inbox.next() == sent
        await FakeClock().settle()
    third, empty = MemoryBus("bus", journal=journal), Inbox()
    third.subscribe("topic", empty)
    async with third:
        await FakeClock().settle()
    assert empty.got.empty()
