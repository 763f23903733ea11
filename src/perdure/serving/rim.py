"""What happens around every request: size limit, token, caller, trace, log fields, the last catch."""

from __future__ import annotations

import re

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perdure.clock import Ids
from perdure.errors import Unauthenticated
from perdure.observability.context import is_trace_parent, log_context, received_trace
from perdure.observability.tracing import TRACE_PARENT, current_trace_parent
from perdure.serving.auth import CALLER_HEADER, TOKEN_HEADER, Gate
from perdure.serving.errors import BodyTooLarge, too_large, unexpected
from perdure.serving.problem import problem_of

DISCARDED_BYTES = 8 * 1024 * 1024
"""Read and thrown away of a body that is too large: twice what a sidecar lets through."""

_NAMED = re.compile(r"/(?:(?:turns|runs)/(?P<run>[a-z2-7]{26}-[0-9]{1,10})|sessions/(?P<session>[^/]{1,256}))(?:/|$)")

CALLER = "perdure.caller"
"""Key of the caller's name in the ASGI scope."""


class Rim:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, gate: Gate, max_body_bytes: int, ids: Ids) -> None:
        self._app = app
        self._gate = gate
        self._limit = max_body_bytes
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        caller = self._gate.caller(headers.get(CALLER_HEADER))
        scope[CALLER] = caller
        with received_trace(self._trace(headers)), log_context(caller=caller, **_about(scope["path"])):
            await self._guarded(scope, headers, receive, send)

    def _trace(self, headers: dict[bytes, bytes]) -> str:
        """Every request has a trace id, so that an error can always be found in the logs."""
        here = current_trace_parent() or headers.get(TRACE_PARENT.encode(), b"").decode("latin-1")
        if is_trace_parent(here):
            return here
        fresh = self._ids.new()
        return f"00-{fresh}-{fresh[16:]}-00"

    async def _guarded(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            self._gate.check(scope["path"], headers.get(TOKEN_HEADER))
            await self._app(scope, self._counted(receive, headers), noted)
        except Unauthenticated as error:
            await problem_of(error)(scope, receive, send)
        except BodyTooLarge as error:
            if started:
                raise
            await too_large(error)(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last catch: nothing internal leaves, and it is logged here, once
            answer = unexpected(error)
            if not started:
                await answer(scope, receive, send)

    def _counted(self, receive: Receive, headers: dict[bytes, bytes]) -> Receive:
        declared = headers.get(b"content-length", b"")
        length = int(declared) if declared.isdigit() else 0
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            if length > self._limit + DISCARDED_BYTES:
                raise BodyTooLarge(self._limit)
            message = await receive()
            seen += len(message.get("body", b""))
            if max(seen, length) > self._limit:
                await _discard(receive, message)
                raise BodyTooLarge(self._limit)
            return message

        return counted


def _about(path: str) -> dict[str, str]:
    """The run or the session that a path names, for the log."""
    named = _NAMED.match(path)
    return {name: value for name, value in named.groupdict().items() if value} if named else {}


async def _discard(receive: Receive, message: Message) -> None:
    """Read on to the end, within reason: who is still sending when the connection closes never sees the answer."""
    discarded = len(message.get("body", b""))
    while message.get("more_body") and discarded <= DISCARDED_BYTES:
        message = await receive()
        discarded += len(message.get("body", b""))


def caller_of(request: Request) -> str:
    """Who called, or empty: recorded as `by`."""
    return str(request.scope.get(CALLER, ""))
