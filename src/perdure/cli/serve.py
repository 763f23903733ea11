"""`perdure serve MODULE:APP`: run one service, the way `dapr.yaml` and the container image start it.

`python -m perdure.cli.serve` is the same without loading the command line library: after a kill,
every tenth of a second until the service answers again counts.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from perdure.errors import Invalid, PerdureError

if TYPE_CHECKING:
    from uvicorn import Server

STOP_WITHIN_S = 3
"""What open requests get on SIGTERM before running actions get their time; a cut request is repeated by its key."""

COLLECT_AFTER = (20_000, 20, 50)
"""A start makes half a million objects that stay. Looking through them as often as by default takes a tenth of it."""

KEEP_IDLE_S = 120
"""Longer than the sidecar keeps its connections to the app, so that the app never closes one that is just used."""

SWITCH_S = 0.0005
"""How long a thread that imports may hold the interpreter while runs are taken up: a tenth of the usual, because each
answer of the sidecar waits for it."""


def run(app: str, *, host: str | None = None, port: int | None = None) -> None:
    """Serve the ASGI application `app` (`module:attribute`, found from the current folder) until SIGTERM or SIGINT.

    Host and port come from the settings (`APP_PORT`) unless given. Raises: Failed, Invalid (settings, `app_unknown`).
    """
    gc.set_threshold(*COLLECT_AFTER)
    signal.signal(signal.SIGTERM, _ended)
    from perdure.settings import load_settings
    from perdure.sidecar.dapr.installed import require_one_piece

    require_one_piece()
    dapr = load_settings().dapr
    sys.path.insert(0, str(Path.cwd()))
    served = _found(app)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            started = runner.run(_serve(served, host or dapr.app_host, port or dapr.app_port))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return
    if not started:
        sys.exit(3)  # the server has said why


def _ended(number: int, frame: FrameType | None) -> None:
    """Uvicorn raises SIGTERM again when all is closed in good order; that is a success, not a death by a signal."""
    sys.exit(0)


def _found(app: str) -> Any:
    module, _, attribute = app.partition(":")
    missing = Invalid("app_unknown", f"there is no {app!r}; say MODULE:APP, as it is found from {Path.cwd()}", app=app)
    if not module or not attribute:
        raise missing
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise missing from error
        raise  # something that the module itself needs
    if not hasattr(found, attribute):
        raise missing
    return getattr(found, attribute)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # where it is not to be had, like Windows
        return None
    return uvloop.new_event_loop


async def _serve(app: Any, host: str, port: int) -> bool:
    """Whether the server ever answered."""
    from perdure.serving.app import App

    with _stopping_early(), _switching_often():
        if isinstance(app, App):
            app.begin()
        server = await asyncio.to_thread(_server, app, host, port)
    await server.serve()
    return server.started


def _server(app: Any, host: str, port: int) -> Server:
    """Everything of HTTP, which takes longer to import than all that drives runs."""
    import uvicorn

    from perdure.serving.app import App

    if isinstance(app, App):
        app.load()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        ws="none",  # nothing here speaks WebSocket; not loading it starts faster
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        timeout_keep_alive=KEEP_IDLE_S,
    )
    config.load()
    return uvicorn.Server(config)


@contextmanager
def _stopping_early() -> Iterator[None]:
    """Until the server hears SIGTERM itself: give up in good order, so that others may adopt at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, _ended)


@contextmanager
def _switching_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def main() -> None:
    """`python -m perdure.cli.serve MODULE:APP`."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m perdure.cli.serve MODULE:APP   (the port is APP_PORT)")
    try:
        run(sys.argv[1])
    except PerdureError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
