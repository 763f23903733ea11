"""Service invocation between apps of this process."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import httpx2

from perdure.errors import NotFound, Transient
from perdure.sidecar.ports import Answer


class MemoryInvoker:
    """Calls ASGI applications by app-id, without a socket."""

    def __init__(self, apps: MutableMapping[str, Any] | None = None) -> None:
        self._apps: MutableMapping[str, Any] = {} if apps is None else apps

    def register(self, app_id: str, app: Any) -> None:
        """Make the ASGI application `app` reachable as `app_id`."""
        self._apps[app_id] = app

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
        app = self._apps.get(app_id)
        if app is None:
            raise NotFound("app_unknown", f"app {app_id!r} is unknown; known: {sorted(self._apps)}", app_id=app_id)
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url=f"http://{app_id}", timeout=timeout_s) as client:
            try:
                reply = await client.request(method, "/" + path.lstrip("/"), content=body, headers=headers)
            except httpx2.HTTPError as error:
                raise Transient("app_unavailable", f"app {app_id!r} did not answer: {error}") from error
        return Answer(reply.status_code, {k.lower(): v for k, v in reply.headers.items()}, reply.content)
