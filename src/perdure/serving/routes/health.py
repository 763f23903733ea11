"""Probes and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from perdure.errors import Transient
from perdure.serving.access import Running, running_service, standing_of
from perdure.serving.health import ABSENT, OK, readiness
from perdure.serving.problem import problem
from perdure.serving.reply import reply

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers. Needs no token."""
    return {"status": OK}


@router.get("/readyz", responses={503: {"description": "Not ready; `checks` says why."}})
async def ready(request: Request) -> Response:
    """The worker is connected and every store answers. Needs no token."""
    try:
        service = await running_service(request)
    except Transient as error:
        return problem(
            503,
            "not_ready",
            error.message,
            headers={"Retry-After": "1"},
            checks={"service": standing_of(request).reason},
        )
    checks = dict(await readiness(service))
    wrong = {name: text for name, text in checks.items() if text not in (OK, ABSENT)}
    if wrong:
        detail = "; ".join(f"{name}: {text}" for name, text in wrong.items())
        return problem(503, "not_ready", detail, headers={"Retry-After": "1"}, checks={**checks})
    return reply({"status": OK, "checks": {**checks}})


@router.get("/metrics")
async def metrics(service: Running) -> Response:
    """Figures for Prometheus."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)
