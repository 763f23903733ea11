"""How a route gets at the running service."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from perdure.errors import Transient
from perdure.serving.rim import caller_of
from perdure.serving.service import Service, Standing


def standing_of(request: Request) -> Standing:
    """How far the service behind this application is."""
    standing: Standing = request.app.state.standing
    return standing


async def built_service(request: Request) -> Service:
    """The service behind this application, which may not be up yet. Raises: Transient (`starting`)."""
    standing = standing_of(request)
    if standing.service is None:
        raise _starting(standing)
    return standing.service


async def running_service(request: Request) -> Service:
    """The service behind this application. Raises: Transient (`starting`) until it is up."""
    standing = standing_of(request)
    if not standing.up:
        raise _starting(standing)
    return await built_service(request)


def _starting(standing: Standing) -> Transient:
    return Transient("starting", f"the service is not up yet: {standing.reason}", retry_after_s=1)


async def request_caller(request: Request) -> str:
    """Who called."""
    return caller_of(request)


Built = Annotated[Service, Depends(built_service)]
Running = Annotated[Service, Depends(running_service)]
Caller = Annotated[str, Depends(request_caller)]
