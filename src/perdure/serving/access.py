"""How a route gets at the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from perdure.errors import Transient
from perdure.serving.rim import caller_of
from perdure.serving.service import Service


async def built_service(request: Request) -> Service:
    """The service behind this application, which may not be up yet. Raises: Transient (`starting`)."""
    service = getattr(request.app.state, "service", None)
    if not isinstance(service, Service):
        raise _starting()
    return service


async def running_service(request: Request) -> Service:
    """The service behind this application. Raises: Transient (`starting`) until it is up."""
    if not getattr(request.app.state, "up", False):
        raise _starting()
    return await built_service(request)


def _starting() -> Transient:
    return Transient("starting", "the service is starting: its sidecar or a store is away", retry_after_s=1)


async def request_caller(request: Request) -> str:
    """Who called."""
    return caller_of(request)


Built = Annotated[Service, Depends(built_service)]
Running = Annotated[Service, Depends(running_service)]
Caller = Annotated[str, Depends(request_caller)]
