"""Figures with the mark they are meant to reach, as a table for people and as JSON."""

from __future__ import annotations

import json
import platform as machine
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `mark` is the goal, None where there is none; `least`: more is better."""

    row: str
    name: str
    value: float
    unit: str
    mark: float | None = None
    least: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the mark is reached; None without one."""
        if self.mark is None:
            return None
        return self.value >= self.mark if self.least else self.value <= self.mark


def show(figures: Sequence[Figure]) -> None:
    """Print the table; the mark is coloured by whether it was reached."""
    table = Table(title=_machine(), title_justify="left", title_style="", header_style="bold", expand=False)
    table.add_column("row", no_wrap=True)
    table.add_column("figure")
    table.add_column("measured", justify="right", no_wrap=True)
    table.add_column("mark", justify="right", no_wrap=True)
    table.add_column("note", ratio=1)
    before = ""
    for figure in figures:
        if before and figure.row != before:
            table.add_section()
        mark = ""
        if figure.mark is not None:
            sign = "≥" if figure.least else "≤"
            colour = "green" if figure.reached else "red"
            mark = f"[{colour}]{sign} {figure.mark:g} {'reached' if figure.reached else 'missed'}[/]"
        shown = f"{_number(figure.value)} {figure.unit}".strip()
        table.add_row("" if figure.row == before else figure.row, figure.name, shown, mark, figure.note)
        before = figure.row
    Console(width=None if Console().is_terminal else 150).print(table)


def save(figures: Sequence[Figure], path: Path, mode: str) -> None:
    """Write all figures as JSON."""
    rows = [{**asdict(figure), "reached": figure.reached} for figure in figures]
    document = {"machine": _machine(), "mode": mode, "perdure": version("perdure"), "figures": rows}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def _machine() -> str:
    load = psutil.getloadavg()[0]
    return (
        f"{psutil.cpu_count()} cores, Python {machine.python_version()}, {machine.system()}; load {load:.1f} at the end"
    )


def _number(value: float) -> str:
    if value and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"
