"""What every row works with: a real platform on free ports, perdure in this process, and the processes' figures."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import psutil
import yaml
from redis.asyncio import Redis

from benchmarks.work import agents
from perdure.clock import SystemClock, SystemIds
from perdure.dev import Platform
from perdure.serving.service import Service
from perdure.serving.turns import Question
from perdure.serving.wiring import Plan, build, dapr_reach, named
from perdure.settings import DaprSettings, Settings
from perdure.sidecar.ports import StateStore
from perdure.types import JsonObject

ROOT = Path(__file__).parents[1]
SERVICE = "assistant"
"""The service process that is killed and measured from outside. Both names are in the components' scopes."""
INSIDE = "orchestrator"
"""The sidecar of the measuring process; its app is a placeholder."""

STORE = "conversationstore"


@dataclass(slots=True)
class Written:
    """What was handed to the store: calls and bytes of keys and values."""

    calls: int = 0
    size: int = 0


class CountingStore:
    """A store that notes what is written through it."""

    def __init__(self, inner: StateStore, written: Written) -> None:
        self.name = inner.name
        self.get, self.get_many, self.check = inner.get, inner.get_many, inner.check
        self.delete = inner.delete
        self._inner = inner
        self._written = written

    async def create(self, key: str, value: bytes) -> None:
        self._count(key, value)
        await self._inner.create(key, value)

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        self._count(key, value)
        await self._inner.put(key, value, etag=etag)

    def _count(self, key: str, value: bytes) -> None:
        self._written.calls += 1
        self._written.size += len(key) + len(value)


@dataclass(frozen=True, slots=True)
class Bench:
    """One platform, and a perdure beside it."""

    platform: Platform
    client: httpx2.AsyncClient
    valkey: Redis
    folder: Path
    quick: bool

    @property
    def effects(self) -> Path:
        """Where the tools of the service note what they did."""
        return self.folder / "effects.log"

    @property
    def url(self) -> str:
        """The service process."""
        return self.platform.app(SERVICE).url

    @property
    def grpc(self) -> str:
        """The sidecar beside this process."""
        return f"127.0.0.1:{self.platform.app(INSIDE).ports.grpc}"

    def process(self, name: str) -> psutil.Process:
        """A process of the platform by its name."""
        pid = self.platform.pids[name]
        if pid is None:
            raise RuntimeError(f"{name} is down; look at {self.platform.log(name)}")
        return psutil.Process(pid)

    def rounds(self, full: int, quick: int) -> int:
        """How often, by mode."""
        return quick if self.quick else full

    async def stored(self) -> int:
        """Bytes that the state server has appended to its file since it started. Nothing rewrites it meanwhile."""
        return int((await self.valkey.info("persistence"))["aof_current_size"])

    @asynccontextmanager
    async def inside(self, written: Written | None = None) -> AsyncIterator[Service]:
        """perdure in this process, wired as a service is; with `written`, its writes are counted."""
        replica = self.platform.app(INSIDE)
        settings = Settings(
            dapr=DaprSettings(app_id=INSIDE, app_port=replica.port, grpc_port=replica.ports.grpc,
                              http_port=replica.ports.http, slot="inside")
        )  # fmt: skip
        plan = Plan(named(agents()), (), (), settings, SystemClock(), SystemIds(), INSIDE, telemetry=False)
        reach = dapr_reach(settings)
        if written is not None:
            counting = {name: CountingStore(store, written) for name, store in reach.doors.stores.items()}
            reach = replace(reach, doors=replace(reach.doors, stores=counting))
        async with build(plan, reach, lambda service: None) as service:
            yield service


async def turn(service: Service, agent: str, session: str, text: str) -> JsonObject:
    """One whole turn: accepted, driven, answered. Raises: RuntimeError when it did not succeed."""
    accepted = await service.turns.ask(Question(text=text, agent=agent, session=session))
    shown = await service.turns.wait(accepted.run_id, 60.0, service.draining)
    if shown["status"] != "done":
        raise RuntimeError(f"a turn ended as {shown}")
    return shown


def _run_file(folder: Path) -> Path:
    def app(name: str, command: list[str], **more: object) -> dict[str, object]:
        return {
            "appID": name, "appDirPath": str(ROOT), "appPort": 8701, "daprHTTPPort": 3701, "daprGRPCPort": 5701,
            "daprInternalGRPCPort": 5801, "metricsPort": 9701, "command": command, **more,
        }  # fmt: skip

    health = {
        "enableAppHealthCheck": True, "appHealthCheckPath": "/healthz", "appHealthProbeInterval": 1,
        "appHealthThreshold": 2,
    }  # fmt: skip
    document = {
        "version": 1,
        "common": {
            "resourcesPaths": [str(ROOT / "components")],
            "configFilePath": str(ROOT / "deploy/local/config.yaml"),
        },
        "apps": [
            app(SERVICE, [sys.executable, "-m", "perdure.cli.serve", "benchmarks.service:app"], **health),
            app(INSIDE, [sys.executable, "-m", "benchmarks.placeholder"]),
        ],
    }
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@asynccontextmanager
async def bench(folder: Path, *, quick: bool) -> AsyncIterator[Bench]:
    """Valkey (fsync on every write), placement, scheduler, two sidecars and a service, on free ports."""
    env = {"BENCH_EFFECTS": str(folder / "effects.log")}
    async with Platform(folder / "home", run_file=_run_file(folder), ports="auto", env=env) as platform:
        port = platform.topology.servers.valkey
        # Rewriting the append-only file would make its growth unreadable.
        valkey = Redis(host="127.0.0.1", port=port)
        await valkey.config_set("auto-aof-rewrite-percentage", 0)
        try:
            async with httpx2.AsyncClient(timeout=60.0, trust_env=False) as client:
                yield Bench(platform, client, valkey, folder, quick)
        finally:
            await valkey.aclose()
