"""One platform for all: a service beside a sidecar whose models are one scripted server, and one of raw bytes.

The server reads its script by the text of the last user message, so each test has words of its own.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import yaml

from aimock import Aimock, running
from perdure.dev import Platform
from perdure.sidecar.dapr.channel import DaprAddress, SidecarChannel
from perdure.sidecar.dapr.chat import DaprChat
from perdure.types import JsonObject
from raw_server import RawServer

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
MAX_ATTEMPTS = 3
FIRST_WAIT_S = 0.1
TIMEOUT_S = 4.0
PORTS = {"appPort": 8700, "daprHTTPPort": 3700, "daprGRPCPort": 5700, "daprInternalGRPCPort": 5800, "metricsPort": 9700}


@dataclass(frozen=True)
class Traffic:
    """The service, the model server, and doors of this process to the service's sidecar."""

    platform: Platform
    server: Aimock
    raw: RawServer
    chat: DaprChat
    client: httpx2.AsyncClient

    async def turn(self, agent: str, text: str, **body: object) -> dict[str, Any]:
        """Ask and wait until the turn has ended."""
        url = self.platform.app("assistant").url
        answered = await self.client.post(f"{url}/turns", json={"agent": agent, "text": text, "wait_s": 50.0, **body})
        assert answered.status_code == 200, answered.text
        return dict(answered.json())

    async def session(self, agent: str, session: str) -> dict[str, Any]:
        """A whole session as HTTP shows it."""
        url = self.platform.app("assistant").url
        return dict((await self.client.get(f"{url}/sessions/{session}", params={"agent": agent})).json())

    async def metric(self, line: str) -> float:
        """The value of the sample whose name and labels are `line`; 0 while there is none."""
        text = (await self.client.get(f"{self.platform.app('assistant').url}/metrics")).text
        return next((float(each.rsplit(" ", 1)[1]) for each in text.splitlines() if each.startswith(line + " ")), 0.0)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The service's log lines of this event."""
        lines = self.platform.log("assistant").read_text().splitlines()
        read = [json.loads(line) for line in lines if line.startswith("{")]
        return [each for each in read if each.get("event") == event]


def component(name: str, endpoint: str, model: str) -> JsonObject:
    """A conversation component before a server that speaks the OpenAI protocol."""
    values = {"key": "none", "endpoint": endpoint, "model": model}
    metadata = [{"name": key, "value": value} for key, value in values.items()]
    spec = {"type": "conversation.openai", "version": "v1", "metadata": metadata}
    return {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": name}, "spec": spec}  # type: ignore[dict-item]


def _run_file(folder: Path, components: list[JsonObject]) -> Path:
    (folder / "models").mkdir()
    (folder / "models" / "models.yaml").write_text(yaml.safe_dump_all(components))
    command = [sys.executable, "-m", "perdure.cli.serve", "service:app"]
    app = {"appID": "assistant", "appDirPath": str(HERE), "command": command, **PORTS}
    common = {
        "resourcesPaths": [str(ROOT / "components"), str(folder / "models")],
        "configFilePath": str(ROOT / "deploy/local/config.yaml"),
    }
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "common": common, "apps": [app]}))
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server() -> AsyncIterator[Aimock]:
    async with running() as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def traffic(server: Aimock, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traffic]:
    folder = tmp_path_factory.mktemp("traffic")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, but nobody listens: connections are refused
        async with RawServer().listening() as raw:
            components = [
                component("gone", f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", "gone"),
                component("raw", f"http://127.0.0.1:{raw.port}/v1", "raw"),
            ]
            env = {
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "OPENAI_API_KEY": "a-dummy-key",
                "OPENAI_MODEL": "chat-model",
                "PERDURE_LLM__MAX_ATTEMPTS": str(MAX_ATTEMPTS),
                "PERDURE_LLM__FIRST_WAIT_S": str(FIRST_WAIT_S),
                "PERDURE_LLM__TIMEOUT_S": str(TIMEOUT_S),
            }
            run_file = _run_file(folder, components)
            async with (
                Platform(folder / ".perdure", run_file=run_file, ports="auto", env=env) as platform,
                httpx2.AsyncClient(timeout=60) as client,
            ):
                channel = SidecarChannel(DaprAddress(grpc=f"127.0.0.1:{platform.app('assistant').ports.grpc}"))
                yield Traffic(platform, server, raw, DaprChat(channel), client)
                await channel.close()
