"""What the assistant can do: one tool that reads, one that may be repeated, one that must happen once."""

from __future__ import annotations

from datetime import date
from typing import Any

from agents.assistant.notes import Desk

from perdure import ToolContext, load_settings, tool

desk = Desk(load_settings().agent.folder / "assistant")


@tool(effect="read")
def list_notes() -> str:
    """Read out all notes that were taken."""
    notes = desk.notes()
    return f"{len(notes)} notes: {'; '.join(notes)}" if notes else "There are no notes."


@tool(effect="idempotent")
def write_note(text: str, context: ToolContext) -> str:
    """Take a note.

    Args:
        text: What to note.
    """
    name = desk.write_note(context.key, text)
    return f"Noted {text!r} in {name}."


@tool(effect="once")
def book_room(room: str, night: date, context: ToolContext) -> str:
    """Book a room for one night.

    Args:
        room: The room's name.
        night: The night, like 2026-01-31.
    """
    return _confirmed(desk.book(context.key, room, night.isoformat()))


@book_room.reconciles
def booked(key: str) -> str | None:
    """The booking made with `key`, so a booking that was cut off is not made twice."""
    booking = desk.booking(key)
    return None if booking is None else _confirmed(booking)


def _confirmed(booking: dict[str, Any]) -> str:
    return f"Booked room {booking['room']} for {booking['night']} (booking {booking['number']})."
