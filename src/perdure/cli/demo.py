"""`perdure demo`: the promise in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.outcome import finish


def demo(
    file: Annotated[Path, typer.Option(help="The run file with the services of this repository.")] = Path("dapr.yaml"),
    home: Annotated[Path, typer.Option(help="Folder for the demonstration's data and logs.")] = Path(".perdure/demo"),
) -> None:
    """Show a turn and a sensor run going on while app and sidecar are killed; takes well under a minute."""
    from rich.console import Console
    from rich.text import Text

    from perdure.clock import SystemClock, SystemIds
    from perdure.dev.demo import demonstrate

    clock = SystemClock()
    began = clock.monotonic()
    console = Console(highlight=False, soft_wrap=True)

    def say(who: str, what: str, style: str) -> None:
        line = Text(f"{clock.monotonic() - began:5.1f} s  {who:<5} ")
        console.print(line.append(what, style=style))

    if not finish(demonstrate(home, file, say, clock, SystemIds())):
        raise typer.Exit(1)
