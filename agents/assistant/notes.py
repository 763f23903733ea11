"""Notes and bookings as files: every write is whole or not at all, and repeated ones change nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Desk:
    """A folder with `notes/` (a file for each) and `bookings.jsonl` (a line for each)."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "notes"
        self._ledger = folder / "bookings.jsonl"

    def write_note(self, key: str, text: str) -> str:
        """Keep a note under its key and return its file's name; the same key writes the same file."""
        self._notes.mkdir(parents=True, exist_ok=True)
        name = hashlib.blake2b(key.encode(), digest_size=8).hexdigest() + ".txt"
        partial = self._notes / f".{name}.part"
        partial.write_text(text + "\n")
        partial.replace(self._notes / name)
        return name

    def notes(self) -> list[str]:
        """The texts of all notes, the oldest first."""
        files = sorted(self._notes.glob("*.txt"), key=lambda file: file.stat().st_mtime_ns)
        return [file.read_text().strip() for file in files]

    def book(self, key: str, room: str, night: str) -> dict[str, Any]:
        """The booking made with `key`, appended unless it is there already.

        Appends of one line are whole; a line cut by a power failure is not counted.
        """
        made = self.booking(key)
        if made is not None:
            return made
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        booking = {"number": sum(1 for _ in self._bookings()) + 1, "room": room, "night": night, "key": key}
        line = json.dumps(booking) + "\n"
        with self._ledger.open("ab") as ledger:
            torn = ledger.tell() > 0 and not self._ledger.read_bytes().endswith(b"\n")
            ledger.write((b"\n" if torn else b"") + line.encode())
            ledger.flush()
            os.fsync(ledger.fileno())
        return booking

    def booking(self, key: str) -> dict[str, Any] | None:
        """The booking made with `key`, if there is one."""
        return next((booking for booking in self._bookings() if booking.get("key") == key), None)

    def _bookings(self) -> Iterator[dict[str, Any]]:
        if not self._ledger.exists():
            return
        for line in self._ledger.read_text().splitlines():
            try:
                booking = json.loads(line)
            except ValueError:
                continue  # torn by a crash: it was never confirmed to anybody
            if isinstance(booking, dict):
                yield booking
