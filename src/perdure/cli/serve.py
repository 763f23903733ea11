"""`perdure serve MODULE:APP`: run one service, the way `dapr.yaml` and the container image start it.

`python -m perdure.cli.serve` is the same without loading the command line library: after a kill,
every tenth of a second until the service answers again counts.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType

from perdure.errors import PerdureError

STOP_WITHIN_S = 3
"""What open requests get on SIGTERM before running actions get their time; a cut request is repeated by its key."""

KEEP_IDLE_S = 120
"""Longer than the sidecar keeps its connections to the app, so that the app never closes one that is just used."""


def run(app: str, *, host: str | None = None, port: int | None = None) -> None:
    """Serve the ASGI application `app` (`module:attribute`, found from the current folder) until SIGTERM or SIGINT.

    Host and port come from the settings (`APP_PORT`) unless given. Raises: Failed, Invalid (settings).
    """
    import uvicorn

    from perdure.settings import load_settings
    from perdure.sidecar.dapr.installed import require_one_piece

    require_one_piece()
    dapr = load_settings().dapr
    sys.path.insert(0, str(Path.cwd()))
    signal.signal(signal.SIGTERM, _ended)
    uvicorn.run(
        app,
        host=host or dapr.app_host,
        port=port or dapr.app_port,
        ws="none",  # nothing here speaks WebSocket; not loading it starts faster
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        timeout_keep_alive=KEEP_IDLE_S,
    )


def _ended(number: int, frame: FrameType | None) -> None:
    """Uvicorn raises SIGTERM again when all is closed in good order; that is a success, not a death by a signal."""
    sys.exit(0)


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
