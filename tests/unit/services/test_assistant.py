"""The assistant without a key: its model, its tools, its desk."""

from __future__ import annotations

from pathlib import Path

import pytest
from agents.assistant.agent import RULES
from agents.assistant.notes import Desk

from perdure.llm.model import ModelRequest
from perdure.llm.offline import NOTICE, OfflineModel
from perdure.sidecar.ports import ChatMessage, ChatTool

TOOLS = tuple(ChatTool(name, "", {}) for name in ("list_notes", "write_note", "book_room"))


async def asked(text: str, *results: str) -> tuple[list[tuple[str, str]], str]:
    messages = [ChatMessage("user", "earlier"), ChatMessage("assistant", "yes"), ChatMessage("user", text)]
    messages += [ChatMessage("tool", result, call_id=str(i)) for i, result in enumerate(results)]
    reply = await OfflineModel(RULES).reply(ModelRequest(tuple(messages), TOOLS))
    return [(call.name, call.arguments) for call in reply.calls], reply.text


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("Note that the key is under the mat.", [("write_note", '{"text": "the key is under the mat"}')]),
        ("What is 17 * 4? Note it down.", [("write_note", '{"text": "What is 17 * 4"}')]),
        ("book room Fram for 2026-01-31", [("book_room", '{"room": "Fram", "night": "2026-01-31"}')]),
        ("please list my notes", [("list_notes", "{}")]),
        (
            "note that I am in; book room Fram for 2026-01-31",
            [
                ("book_room", '{"room": "Fram", "night": "2026-01-31"}'),
                ("write_note", '{"text": "I am in"}'),
            ],
        ),
    ],
)
async def test_the_offline_model_recognises_requests_for_the_tools(text: str, calls: list[tuple[str, str]]) -> None:
    assert await asked(text) == (calls, "")
    assert await asked(text) == (calls, "")  # asked again after a crash, it says the same


async def test_the_offline_model_answers_from_the_results_and_says_what_it_is() -> None:
    calls, text = await asked("list my notes", "There are no notes.")
    assert calls == []
    assert text == f"There are no notes. {NOTICE}"


async def test_the_offline_model_says_what_it_understands() -> None:
    calls, text = await asked("hello")
    assert calls == []
    assert "book room Fram for 2026-01-31" in text
    assert NOTICE in text


def test_a_note_with_the_same_key_is_one_note(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.write_note("k", "one") == desk.write_note("k", "one")
    assert desk.write_note("k2", "two") != desk.write_note("k", "one")
    assert sorted(desk.notes()) == ["one", "two"]


def test_a_booking_is_found_by_its_key_also_after_a_torn_line(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.booking("k1") is None
    first = desk.book("k1", "Fram", "2026-01-31")
    with (tmp_path / "bookings.jsonl").open("a") as ledger:
        ledger.write('{"number": 2, "room": "Fr')
    second = desk.book("k2", "Maud", "2026-02-01")
    assert desk.booking("k1") == first
    assert desk.booking("k2") == second
    assert second["number"] == 2


def test_a_room_booked_again_with_the_same_key_is_one_booking(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first = desk.book("k1", "Fram", "2026-01-31")
    assert desk.book("k1", "Fram", "2026-01-31") == first
    assert desk.book("k2", "Fram", "2026-01-31")["number"] == 2
    assert len((tmp_path / "bookings.jsonl").read_text().splitlines()) == 2
