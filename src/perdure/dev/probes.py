"""Asking a process whether it is ready. Every answer comes in bounded time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from perdure.dev.ports import LOOPBACK

ANSWER_WITHIN_S = 3.0
DETAIL_LIMIT = 300


class Probe(Protocol):
    """A question with a yes or a reason."""

    async def ask(self) -> str:
        """Empty when ready, else what is missing, in words for a person."""
        ...


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """Ready when GET `path` answers with a 2xx."""

    port: int
    path: str

    async def ask(self) -> str:
        request = f"GET {self.path} HTTP/1.1\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n"
        try:
            head, _, body = (await _exchange(self.port, request.encode())).partition(b"\r\n\r\n")
        except (OSError, TimeoutError) as error:
            return f"port {self.port} does not answer ({type(error).__name__})"
        status = head.split(b" ", 2)[1:2]
        if status and status[0].startswith(b"2"):
            return ""
        told = body.decode(errors="replace").strip()[:DETAIL_LIMIT]
        return f"{self.path} answers {b''.join(status).decode(errors='replace') or 'nothing'} {told}".strip()


@dataclass(frozen=True, slots=True)
class ValkeyProbe:
    """Ready when PING is answered; a server that still loads its file says so."""

    port: int

    async def ask(self) -> str:
        try:
            answer = await _exchange(self.port, b"PING\r\nQUIT\r\n")
        except (OSError, TimeoutError) as error:
            return f"port {self.port} does not answer ({type(error).__name__})"
        return "" if answer.startswith(b"+PONG") else answer.decode(errors="replace").strip()[:DETAIL_LIMIT]


@dataclass(frozen=True, slots=True)
class AllProbes:
    """Ready when all are; otherwise what the first one misses."""

    probes: tuple[Probe, ...]

    async def ask(self) -> str:
        for probe in self.probes:
            if missing := await probe.ask():
                return missing
        return ""


async def _exchange(port: int, request: bytes) -> bytes:
    async with asyncio.timeout(ANSWER_WITHIN_S):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()
