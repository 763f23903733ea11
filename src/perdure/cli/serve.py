"""`perdure serve MODULE:APP`: run one service, the way `dapr.yaml` and the container image start it.

`python -m perdure.cli.serve` is the same without loading the command line library: after a kill,
every tenth of a second until the service answers again counts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

DEFAULT_HOST = "127.0.0.1"
STOP_WITHIN_S = 12
"""A little more than running actions get on SIGTERM, so that they are released and not cut."""


def run(app: str, *, host: str, port: int) -> None:
    """Serve the ASGI application `app` (`module:attribute`, found from the current folder) until SIGTERM or SIGINT."""
    import uvicorn

    from perdure.sidecar.dapr.installed import require_one_piece

    require_one_piece()
    sys.path.insert(0, str(Path.cwd()))
    uvicorn.run(
        app,
        host=host,
        port=port,
        ws="none",  # nothing here speaks WebSocket; not loading it starts faster
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN_S,
        timeout_keep_alive=75,  # longer than the sidecar keeps its connections, so only the sidecar closes idle ones
    )


def main() -> None:
    """`python -m perdure.cli.serve MODULE:APP`, with APP_PORT (and APP_HOST) from the environment."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m perdure.cli.serve MODULE:APP   (the port comes from APP_PORT)")
    env = os.environ  # noqa: TID251  # what `dapr run` tells every app; loading the settings happens in the app
    port = env.get("APP_PORT", "")
    if not port.isdigit():
        sys.exit(
            "APP_PORT is not set; `dapr run` and `perdure dev up` set it, or use `perdure serve MODULE:APP --port N`"
        )
    run(sys.argv[1], host=env.get("APP_HOST", DEFAULT_HOST), port=int(port))


if __name__ == "__main__":
    main()
else:
    import typer

    def serve(
        app: Annotated[str, typer.Argument(help="The ASGI application, as module:attribute.")],
        port: Annotated[int, typer.Option(envvar="APP_PORT", help="Where to answer HTTP.")],
        host: Annotated[str, typer.Option(envvar="APP_HOST", help="The address to listen on.")] = DEFAULT_HOST,
    ) -> Any:
        """Run one service until SIGTERM or Ctrl-C."""
        run(app, host=host, port=port)
