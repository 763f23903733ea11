"""Writes that wait together travel together: one call to the sidecar for many items.

A call costs the caller's processor five times what another item in it costs. So while a few calls are on their way,
further items wait for one of them to return and then go in one call. Nobody waits when nothing is on its way.
The items of a call are independent of each other in the store; when a call fails, nobody knows which of them were
written, and each is looked up by its own caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from dapr.proto.common.v1.common_pb2 import StateItem

from perdure.sidecar.certain import Unsure

CALLS_ON_THEIR_WAY = 4
"""Enough to keep a store busy that syncs to disk; more would only make the calls smaller."""

ITEMS_IN_A_CALL = 16
BYTES_IN_A_CALL = 512 * 1024

Send = Callable[[Sequence[StateItem]], Awaitable[None]]


class Batcher:
    """Sends items through `send`, alone when the way is free, else together."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sending = 0
        self._waiting: list[tuple[StateItem, asyncio.Future[None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def save(self, item: StateItem) -> None:
        """Return when `item` is written. Raises what `send` raises, also for the items that shared the call."""
        if self._sending >= CALLS_ON_THEIR_WAY:
            written = asyncio.get_running_loop().create_future()
            self._waiting.append((item, written))
            await written
            return
        self._sending += 1
        try:
            await self._send((item,))
        finally:
            self._sending -= 1
            self._go_on()

    def _go_on(self) -> None:
        if not self._waiting:
            return
        self._sending += 1
        task = asyncio.create_task(self._send_together(self._batch()), name="state batch")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _batch(self) -> list[tuple[StateItem, asyncio.Future[None]]]:
        """The first that wait, as many as fit; of two with one key the later one waits on, for they have an order."""
        batch: list[tuple[StateItem, asyncio.Future[None]]] = []
        rest: list[tuple[StateItem, asyncio.Future[None]]] = []
        keys: set[str] = set()
        size = 0
        for item, written in self._waiting:
            fits = len(batch) < ITEMS_IN_A_CALL and (not batch or size + len(item.value) <= BYTES_IN_A_CALL)
            if fits and item.key not in keys:
                batch.append((item, written))
                size += len(item.value)
            else:
                rest.append((item, written))
            keys.add(item.key)
        self._waiting = rest
        return batch

    async def _send_together(self, batch: Sequence[tuple[StateItem, asyncio.Future[None]]]) -> None:
        error: BaseException | None = None
        try:
            await self._send([item for item, _ in batch])
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - handed to those who wait, not swallowed
            error = raised
        self._sending -= 1
        self._go_on()
        if error is not None and len(batch) > 1 and not isinstance(error, Unsure | asyncio.CancelledError):
            # A refusal for good is about one of them: each is told its own.
            for one in batch:
                self._sending += 1
                await self._send_together([one])
            return
        for _, written in batch:
            if written.done():
                continue  # its caller was cancelled; what became of the write is for the next reader to see
            if error is None:
                written.set_result(None)
            elif isinstance(error, asyncio.CancelledError):
                written.cancel()
            else:
                written.set_exception(error)
