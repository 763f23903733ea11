"""Where the parts of a log are kept."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.types import SubjectId

MARK = b"0"
"""Stands where content was retired or erased; a create there conflicts. Valid JSON, as some stores demand."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The state keys of one subject."""

    subject: SubjectId
    prefix: str = ""

    def commit(self, n: int) -> str:
        return f"{self.prefix}log/{self.subject}/{n:010d}"

    def segment(self, first: int) -> str:
        return f"{self.prefix}seg/{self.subject}/{first:010d}"

    @property
    def head(self) -> str:
        return f"{self.prefix}head/{self.subject}"

    def blob(self, digest: str, parts: int) -> list[str]:
        """The keys of all parts; a single part has no number."""
        key = f"{self.prefix}blob/{self.subject}/{digest}"
        return [key] if parts == 1 else [f"{key}.{part}" for part in range(parts)]
