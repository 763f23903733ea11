"""Puts the groups of commands together."""

from __future__ import annotations

import typer

from perdure.cli import demo, dev, service


def build() -> typer.Typer:
    """The whole command."""
    app = typer.Typer(
        name="perdure",
        help="Durable agents beside a Dapr sidecar.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.add_typer(dev.commands(), name="dev", help="The local platform: Dapr, Valkey and the services of dapr.yaml.")
    app.command()(demo.demo)
    app.command()(service.serve)
    app.command()(service.settings)
    return app


def main() -> None:
    """Entry point of the `perdure` script."""
    build()()


if __name__ == "__main__":
    main()
