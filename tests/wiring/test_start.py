"""What a service loads before it goes on with what a crash interrupted: the drive of a run needs no HTTP."""

from __future__ import annotations

import json
import subprocess
import sys

LATER = (
    "fastapi",
    "starlette",
    "uvicorn",
    "aiohttp",
    "opentelemetry",
    "structlog",
    "perdure.pipeline.work",
    "dapr.clients",
    "dapr.ext",
)
"""Two thirds of what a service of agents imports, and nothing of it is needed to adopt a run and drive it."""

PROBE = """
import asyncio, json, sys
from contextlib import asynccontextmanager

import perdure.cli.serve
from perdure import App, DurableAgent, Settings
from perdure.observability.logs import configure_logging
from perdure.serving.lifespan import Keeper
from perdure.serving.service import Standing
from perdure.serving.wiring import dapr_reach, memory_reach

adopted = asyncio.Event()

@asynccontextmanager
async def part(service):  # entered as soon as the runner has adopted
    print(json.dumps(sorted(sys.modules)))
    adopted.set()
    yield

async def main():
    app = App(agents=[DurableAgent("a", model="scripted:hi")], settings=Settings(), parts=[part])
    dapr_reach(app.settings)  # the doors to a sidecar are loaded with it, and nothing is asked of them here
    print(json.dumps(sorted(sys.modules)))

    from perdure.sidecar.memory import MemorySidecar  # whose invoker calls through httpx2

    configure_logging()
    keeper = Keeper(app.plan(telemetry=True), lambda: memory_reach(MemorySidecar("a")), Standing())
    service = keeper.begin()
    await adopted.wait()
    service.cancel()
    await asyncio.wait((service,))

asyncio.run(main())
"""


def test_runs_are_adopted_before_http_telemetry_and_the_workflow_sdk_are_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True)
    connected, adopted = (json.loads(line) for line in done.stdout.splitlines())
    assert "dapr.proto.runtime.v1.dapr_pb2_grpc" in connected
    assert "httpx2" not in connected
    assert [name for name in adopted if any(f"{name}.".startswith(f"{later}.") for later in LATER)] == []
