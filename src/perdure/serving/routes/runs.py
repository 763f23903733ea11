"""What is going on: open runs, and who this service is."""

from __future__ import annotations

from typing import cast

from fastapi import APIRouter, Response

from perdure.serving.access import Running
from perdure.serving.card import card
from perdure.serving.reply import reply
from perdure.types import Json

router = APIRouter(tags=["service"])


@router.get("/runs")
async def runs(service: Running) -> Response:
    """The open runs that this app drives or has under a host."""
    return reply({"runs": cast("list[Json]", await service.runner.runs())})


@router.get("/card")
async def show_card(service: Running) -> Response:
    """The agents of this service and what they can do."""
    return reply(card(service))
