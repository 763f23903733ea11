"""Server-sent events that resume where the reader stopped."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict

import orjson
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from perdure.errors import Invalid
from perdure.run.event import Event

Numbered = tuple[int, int, Event]
_POSITION = re.compile(r"([0-9]{1,10})\.([0-9]{1,6})")


def position(last_event_id: str | None) -> tuple[int, int]:
    """Where a reader stopped: `n.i` as sent with each event; nothing means the start.

    Raises: Invalid (code `event_id_malformed`).
    """
    if not last_event_id:
        return (0, 0)
    match = _POSITION.fullmatch(last_event_id)
    if match is None:
        raise Invalid(
            "event_id_malformed", f"Last-Event-ID {last_event_id[:40]!r} is not like 12.0; send it as received"
        )
    return int(match[1]), int(match[2])


def event_stream(events: AsyncIterator[Numbered], *, keep_alive_s: float, stop: asyncio.Event) -> StreamingResponse:
    """The events as they come; a comment after `keep_alive_s` of silence; ends with `events`, or when `stop` is set."""
    return StreamingResponse(
        _lines(events, keep_alive_s, stop),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _lines(events: AsyncIterator[Numbered], keep_alive_s: float, stop: asyncio.Event) -> AsyncIterator[bytes]:
    stopping = asyncio.create_task(stop.wait())
    coming: asyncio.Future[Numbered] | None = None
    try:
        while not stopping.done():
            coming = coming or asyncio.ensure_future(anext(events))
            await asyncio.wait((coming, stopping), timeout=keep_alive_s, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done():
                yield KEEPALIVE_COMMENT
                continue
            done, coming = coming, None
            try:
                yield _encoded(*done.result())
            except StopAsyncIteration:
                return
    finally:
        stopping.cancel()
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))
        async with aclosing(events):  # type: ignore[type-var]  # an async generator, seen as what it yields
            pass


def _encoded(n: int, i: int, event: Event) -> bytes:
    return format_sse_event(event=event.t, id=f"{n}.{i}", data_str=orjson.dumps(asdict(event)).decode())
