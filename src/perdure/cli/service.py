"""`perdure serve` and `perdure settings`: one service, and what it would be configured with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.outcome import fail
from perdure.errors import PerdureError


def serve(
    app: Annotated[str, typer.Argument(help="The ASGI application, as module:attribute.")],
    port: Annotated[int | None, typer.Option(help="Where to answer HTTP; else APP_PORT.")] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on; else PERDURE_DAPR__APP_HOST.")] = None,
) -> None:
    """Run one service until SIGTERM or Ctrl-C."""
    from perdure.cli.serve import run

    try:
        run(app, host=host, port=port)
    except PerdureError as error:
        fail(error)


def settings(
    file: Annotated[Path | None, typer.Option(help="A TOML file; else PERDURE_SETTINGS_FILE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show every setting, its value and where that comes from; secrets are masked."""
    from perdure.settings import list_settings

    try:
        lines = list_settings(file=file)
    except PerdureError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=1))
        return
    width = max(len(line.name) for line in lines)
    for line in lines:
        typer.echo(f"{line.name:<{width}}  {line.value}  [{line.origin}]\n{'':<{width}}  {line.about}")
