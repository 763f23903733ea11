"""The HTTP side: routers, rim and problems on one FastAPI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import TypeAlias

from fastapi import APIRouter, FastAPI

from perdure.serving import errors, pipelines
from perdure.serving.auth import OPEN_PATHS, Gate
from perdure.serving.problem import Problem
from perdure.serving.rim import Rim
from perdure.serving.routes import dapr, health, runs, sessions, turns
from perdure.serving.service import Standing
from perdure.serving.wiring import Plan

Life: TypeAlias = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def http_application(
    plan: Plan, standing: Standing, routers: Sequence[APIRouter] = (), life: Life | None = None
) -> FastAPI:
    """The ASGI application; it answers 503 for as long as the service is not up."""
    settings = plan.settings
    traced = bool(settings.observability.otlp_endpoint)
    app = FastAPI(
        title=plan.app_id,
        version=version("perdure"),
        lifespan=life or _nothing,
        responses={"4XX": {"model": Problem}, "5XX": {"model": Problem}},
        # Providers are ours; FastAPI adds its request span to them and nothing from the environment. Its logs
        # would hold exception texts, and its inner spans outnumber what is worth seeing.
        telemetry={
            "auto_configure": False,
            "tracing": traced,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "exclude": lambda scope: scope.get("path") in OPEN_PATHS,
        },
    )
    app.state.standing = standing
    token = settings.dapr.app_token.get_secret_value() if settings.dapr.app_token else None
    app.add_middleware(Rim, gate=Gate(token), max_body_bytes=settings.http.max_body_bytes, ids=plan.ids)
    errors.install(app)
    for router in (*_routers(plan), *routers):
        app.include_router(router)
    return app


def _routers(plan: Plan) -> Iterator[APIRouter]:
    """What this service has, and nothing else."""
    if plan.agents:
        yield turns.router
        yield sessions.router
    yield runs.router
    if plan.pipelines:
        yield pipelines.runs
    if plan.steps:
        yield pipelines.steps
    yield health.router
    yield dapr.router


@asynccontextmanager
async def _nothing(app: FastAPI) -> AsyncIterator[None]:
    yield
