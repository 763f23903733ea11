"""`perdure dev …`: the local platform from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from perdure.cli.outcome import fail, finish, say
from perdure.errors import Invalid, PerdureError

Home = Annotated[Path, typer.Option(help="Folder with the platform's data, logs and record.")]
DEFAULT_HOME = Path(".perdure")


def commands() -> typer.Typer:
    """The group `dev`."""
    app = typer.Typer(no_args_is_help=True)
    for command in (runtime, up, down, status, logs, restart):
        app.command()(command)
    return app


def runtime(
    cache: Annotated[Path | None, typer.Option(help="Where to keep what is fetched or built.")] = None,
    own: Annotated[bool, typer.Option("--own", help="Ignore a Dapr that is installed elsewhere.")] = False,
    from_source: Annotated[bool, typer.Option("--from-source", help="Build; do not try the release.")] = False,
) -> None:
    """Make sure that a suitable Dapr is on this machine."""
    from perdure.dev.environment import cache_root
    from perdure.dev.provision import ensure_runtime

    finish(ensure_runtime(cache or cache_root(), say, only_own=own, from_source=from_source))


def up(
    services: Annotated[list[str] | None, typer.Argument(help="Only these services.")] = None,
    file: Annotated[Path, typer.Option(help="The run file.")] = Path("dapr.yaml"),
    home: Home = DEFAULT_HOME,
    ports: Annotated[str, typer.Option(help="`file`: those of the run file; a first port; or `auto`.")] = "file",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when all is ready.")] = False,
    with_dapr_cli: Annotated[
        bool, typer.Option(help="Let `dapr run -f` run the services; it restarts nothing.")
    ] = False,
    no_services: Annotated[bool, typer.Option("--no-services", help="Only Valkey, placement and scheduler.")] = False,
) -> None:
    """Start everything, restart what dies, until Ctrl-C."""
    from perdure.dev import foreground

    try:
        chosen = _ports(ports)
    except PerdureError as error:
        fail(error)
    if detach:
        arguments = ["--file", str(file), "--home", str(home), "--ports", ports, *(services or [])]
        arguments += ["--with-dapr-cli"] * with_dapr_cli + ["--no-services"] * no_services
        finish(foreground.detach(arguments, home, say))
        return
    names = [] if no_services else services or None
    finish(foreground.run(foreground.Wish(home, file, chosen, names, with_dapr_cli=with_dapr_cli), say))


def down(home: Home = DEFAULT_HOME) -> None:
    """End the platform and everything it started."""
    from perdure.dev import remote

    finish(remote.down(home, say))


def status(home: Home = DEFAULT_HOME) -> None:
    """Show what runs. Exit code 1 when it does not run or something is not ready."""
    from perdure.dev import remote

    if not finish(remote.status(home, typer.echo)):
        raise typer.Exit(1)


def logs(
    name: Annotated[str | None, typer.Argument(help="One process, e.g. `assistant` or `assistant.sidecar`.")] = None,
    home: Home = DEFAULT_HOME,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines to begin with.")] = 20,
) -> None:
    """Show what the processes wrote."""
    from perdure.dev import remote

    finish(remote.logs(home, name, lines, typer.echo, follow=follow))


def restart(
    name: Annotated[str, typer.Argument(help="A service, its sidecar (`assistant.sidecar`) or a server.")],
    home: Home = DEFAULT_HOME,
    kill: Annotated[bool, typer.Option("--kill", help="SIGKILL, as a crash would.")] = False,
) -> None:
    """End one process; the platform starts it again. Returns when it is ready."""
    from perdure.dev import remote

    finish(remote.restart(home, name, say, kill=kill))


def _ports(text: str) -> int | Literal["auto"] | None:
    if text == "file":
        return None
    if text == "auto":
        return "auto"
    if text.isdigit() and 1024 <= int(text) <= 65000:
        return int(text)
    raise Invalid("ports_invalid", f"--ports {text}: say `file`, `auto` or a first port between 1024 and 65000")
