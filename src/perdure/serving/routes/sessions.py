"""A session: what was said, and its turns."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from perdure.serving.access import Running
from perdure.serving.reply import reply

router = APIRouter(prefix="/sessions", tags=["sessions"])

SessionKey = Annotated[str, Path(min_length=1, max_length=256)]
AgentName = Annotated[str, Query(max_length=256, description="May be left out where the service has one agent.")]


@router.get("/{session:path}")
async def show(session: SessionKey, service: Running, agent: AgentName = "") -> Response:
    """Its newest turns and messages."""
    return reply(await service.turns.session(agent, session))


@router.delete("/{session:path}", status_code=204)
async def erase(session: SessionKey, service: Running, agent: AgentName = "") -> Response:
    """Erase everything that was said in it, for ever; refused while a turn is open."""
    await service.turns.erase(agent, session)
    return Response(status_code=204)
