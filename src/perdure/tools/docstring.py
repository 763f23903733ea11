"""Reads a docstring in Google style: what the function does, and a line for each argument."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Raises|Yields?|Examples?|Notes?|Attributes):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")
_ARGUMENT_SECTIONS = frozenset({"Args", "Arguments", "Parameters"})


@dataclass(frozen=True, slots=True)
class Docstring:
    """`text`: everything but the sections about arguments and errors, which the model gets elsewhere or never."""

    text: str = ""
    arguments: dict[str, str] = field(default_factory=dict)


def parse_docstring(raw: str | None) -> Docstring:
    """The parts of a docstring; one without sections is all text."""
    if not raw:
        return Docstring()
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    lines = prose
    for line in inspect.cleandoc(raw).splitlines():
        heading = _SECTION.match(line)
        if heading:
            lines = sections.setdefault(heading[1], [])
        elif lines is not prose and line and not line[0].isspace():
            lines = prose
            lines.append(line)
        else:
            lines.append(line)
    described: dict[str, str] = {}
    for name in _ARGUMENT_SECTIONS & sections.keys():
        described |= _arguments(sections[name])
    text = "\n".join(prose).strip()
    returned = " ".join(line.strip() for name in ("Return", "Returns") for line in sections.get(name, ())).strip()
    return Docstring(f"{text}\nReturns: {returned}".strip() if returned else text, described)


def _arguments(lines: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    current, depth = "", 0
    for line in lines:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        match = _ARGUMENT.match(line.strip())
        if match and (not current or indent <= depth):
            current, depth = match[1], indent
            found[current] = match[2].strip()
        elif current:
            found[current] = f"{found[current]} {line.strip()}".strip()
    return found
