"""Runs blocking functions beside the event loop, each in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class ToolThreads:
    """Runs blocking functions, and knows those that still run: a cancelled await does not stop a thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working: dict[str, list[Future[None]]] = {}

    def working(self, key: str) -> bool:
        """Whether a function begun with `key` has not ended, whoever has given up waiting for it."""
        return key in self._working

    async def ended(self, key: str) -> None:
        """Return when no function begun with `key` runs any more."""
        for end in self._left(key):
            await asyncio.wrap_future(end)

    async def run(self, function: Callable[[], T], name: str, key: str = "") -> T:
        """What `function` returns or raises; it sees the caller's context variables.

        A daemon thread for each call, not the loop's pool: a tool that hangs past its limit then neither starves
        other tools (the pool has six threads on two cores) nor keeps the process from ending.
        """
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()
        end = self._begin(key)

        def body() -> None:
            try:
                value = context.run(function)
            except BaseException as error:  # noqa: BLE001 - carried to the awaiting task, which raises it
                self._end(key, end)
                _post(loop, _settle_error, outcome, error)
            else:
                self._end(key, end)
                _post(loop, _settle, outcome, value)

        try:
            threading.Thread(target=body, name=f"tool-{name}", daemon=True).start()
        except BaseException:
            self._end(key, end)
            raise
        return await outcome

    def _left(self, key: str) -> list[Future[None]]:
        with self._lock:
            return list(self._working.get(key, ()))

    def _begin(self, key: str) -> Future[None]:
        end: Future[None] = Future()
        end.set_running_or_notify_cancel()  # so that nobody who stops waiting for it can cancel it
        with self._lock:
            self._working.setdefault(key, []).append(end)
        return end

    def _end(self, key: str, end: Future[None]) -> None:
        with self._lock:
            self._working[key].remove(end)
            if not self._working[key]:
                del self._working[key]
        end.set_result(None)


def _settle(outcome: asyncio.Future[T], value: T) -> None:
    if not outcome.done():
        outcome.set_result(value)


def _settle_error(outcome: asyncio.Future[T], error: BaseException) -> None:
    if outcome.done():
        return
    if isinstance(error, StopIteration):  # a future refuses it
        carried = RuntimeError(f"StopIteration: {error}")
        carried.__cause__ = error
        outcome.set_exception(carried)
    else:
        outcome.set_exception(error)


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise
        # The process gave up on this call and is ending: nobody is left to be told.
