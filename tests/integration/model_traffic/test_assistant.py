"""The project's own assistant, once the environment names a model server."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from aimock import Aimock, answer, calls
from perdure.dev import Platform

pytestmark = [
    pytest.mark.sidecar,
    pytest.mark.node,
    pytest.mark.timeout(180),
    pytest.mark.asyncio(loop_scope="session"),
]

ROOT = Path(__file__).parents[3]


async def test_the_assistant_of_the_run_file_books_with_a_real_model(server: Aimock, tmp_path: Path) -> None:
    """Nothing but two variables turns the offline model into one behind `conversation.openai`."""
    asked = "a-bed for the thirty-first"
    await server.script(
        answer(asked, "Fram is yours.", match={"toolResultContains": "Booked room Fram"}),
        calls(asked, ("book_room", {"room": "Fram", "night": "2026-01-31"})),
    )
    env = {
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_MODEL": "front-desk",
        "PERDURE_AGENT__FOLDER": str(tmp_path / "agents"),
    }
    home, run_file = tmp_path / ".perdure", ROOT / "dapr.yaml"
    async with (
        Platform(home, run_file=run_file, services=["assistant"], ports="auto", env=env) as platform,
        httpx2.AsyncClient(timeout=60) as client,
    ):
        body = {"agent": "assistant", "text": asked, "wait_s": 50.0}
        turn = (await client.post(f"{platform.app('assistant').url}/turns", json=body)).json()
    assert (turn["status"], turn["answer"], turn["steps"]) == ("done", "Fram is yours.", 2)
    (booking,) = (tmp_path / "agents" / "assistant" / "bookings.jsonl").read_text().splitlines()
    assert (json.loads(booking)["room"], json.loads(booking)["night"]) == ("Fram", "2026-01-31")
    assert {each["model"] for each in await server.asked(asked)} == {"front-desk"}
