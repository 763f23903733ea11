"""Service invocation through both sidecars."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

import orjson

from perdure.errors import NotFound, SidecarUnavailable, Transient
from perdure.sidecar.dapr.channel import DaprAddress
from perdure.sidecar.ports import Answer

if TYPE_CHECKING:
    import httpx2

UNRESOLVED = re.compile(r"couldn't find service|failed to resolve|no such host|app.?id.* not found", re.IGNORECASE)
SIDECAR_ERRORS = frozenset({"ERR_DIRECT_INVOKE", "ERR_INVOKE_OUTPUT_BINDING"})


class DaprInvoker:
    """HTTP calls to `/v1.0/invoke/<app-id>/method/<path>`; open it to use it."""

    def __init__(self, address: DaprAddress) -> None:
        self._address = address
        self._client: httpx2.AsyncClient | None = None

    async def _opened(self) -> httpx2.AsyncClient:
        if self._client is None:
            # In a thread: the first call often comes while interrupted runs are taken up again.
            library = await asyncio.to_thread(import_module, "httpx2")
        if self._client is None:
            headers = dict(self._address.metadata)
            self._client = library.AsyncClient(base_url=self._address.http, headers=headers, trust_env=False)
        return self._client

    async def close(self) -> None:
        """End the connections; the next call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def call(
        self,
        app_id: str,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        client = await self._opened()
        import httpx2

        url = f"/v1.0/invoke/{app_id}/method/{path.lstrip('/')}"
        try:
            reply = await client.request(method, url, content=body, headers=headers, timeout=timeout_s)
        except (httpx2.ConnectError, httpx2.TimeoutException) as error:
            message = f"app {app_id!r} was not reached through the sidecar ({type(error).__name__}: {error}); repeat"
            raise SidecarUnavailable("sidecar_unavailable", message, app_id=app_id) from error
        except httpx2.HTTPError as error:
            # The connection broke after the request was sent: the app may have done the work.
            raise Transient("app_unavailable", f"app {app_id!r} did not answer: {error}", app_id=app_id) from error
        _raise_for_sidecar(app_id, reply)
        return Answer(reply.status_code, {k.lower(): v for k, v in reply.headers.items()}, reply.content)


def _raise_for_sidecar(app_id: str, reply: httpx2.Response) -> None:
    """An answer of the sidecar itself, told from the app's by its error code."""
    if reply.status_code < 500 or b"ERR_" not in reply.content:
        return
    try:
        problem = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        return
    if not isinstance(problem, dict) or problem.get("errorCode") not in SIDECAR_ERRORS:
        return
    text = str(problem.get("message", ""))
    if UNRESOLVED.search(text):
        raise NotFound("app_unknown", f"no app {app_id!r} is running beside a sidecar ({text})", app_id=app_id)
    raise Transient("app_unavailable", f"app {app_id!r} was not reached ({text}); repeat", app_id=app_id)
