"""A server that answers with exactly the bytes a test gives it, for what a well-behaved server never says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class RawServer:
    """Answers one request after the other with `answers`, closing the connection after each; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[dict[str, Any]] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[RawServer]:
        """On a free port of this machine, while the block is open."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-len"))
        self.requests.append(json.loads(await reader.readexactly(length)))
        writer.write(self.answers.pop(0) if self.answers else http(b"", status="500 Nothing left to say"))
        await writer.drain()
        writer.close()


def http(body: bytes, *, status: str = "200 OK", kind: str = "application/json", length: int | None = None) -> bytes:
    """An HTTP response; with a `length` above that of the body it is one that was cut."""
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {size}\r\n\r\n".encode() + body


def completion(**message: Any) -> bytes:
    """An HTTP response with a chat completion that says `message`."""
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "raw", "choices": [choice], "usage": usage}
    return http(json.dumps(whole).encode())
