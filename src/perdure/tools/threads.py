"""Runs a blocking function beside the event loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def run_in_thread(function: Callable[[], T], name: str) -> T:
    """What `function` returns or raises; it sees the caller's context variables.

    A daemon thread for each call, not the loop's pool: a tool that hangs past its limit then neither starves
    other tools (the pool has six threads on two cores) nor keeps the process from ending.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def body() -> None:
        try:
            value = context.run(function)
        except BaseException as error:  # noqa: BLE001 - carried to the awaiting task, which raises it
            _post(loop, _settle_error, outcome, error)
        else:
            _post(loop, _settle, outcome, value)

    threading.Thread(target=body, name=f"tool-{name}", daemon=True).start()
    return await outcome


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
