"""How commands end: exit codes, and errors as one message instead of a trace.

0 done · 1 the command could not do it, the message says what next · 2 wrong usage · 130 interrupted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import NoReturn, TypeVar

import typer

from perdure.errors import Broken, PerdureError

T = TypeVar("T")


def say(line: str) -> None:
    """A line for the person at the terminal (standard error; standard output is for results)."""
    typer.echo(line, err=True)


def finish(work: Coroutine[object, object, T]) -> T:
    """Run `work`; a perdure error becomes its message and exit code 1, Ctrl-C exit code 130."""
    try:
        return asyncio.run(work)
    except Broken:
        raise
    except PerdureError as error:
        fail(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(130) from None


def fail(error: PerdureError) -> NoReturn:
    """Tell the error and end with exit code 1."""
    say(f"error: {error}")
    raise typer.Exit(1) from error
