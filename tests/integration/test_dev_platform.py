"""The local platform with real Dapr: what starts, what comes back, what stays behind (nothing)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import psutil
import pytest
import yaml

from perdure.dev import Platform
from perdure.dev.child import Happening
from perdure.dev.record import read_record
from perdure.errors import Conflict, Failed, NotFound

pytestmark = [pytest.mark.sidecar, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
CODE = """
import os
from fastapi import FastAPI
app = FastAPI()
@app.get("/healthz")
@app.get("/readyz")
@app.get("/who")
def who() -> dict[str, object]:
    return {"app": os.environ["APP_ID"], "pid": os.getpid(), "said": os.environ.get("SAID", "")}
"""
APPS = ("assistant", "registry")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two tiny services, on the components and the configuration of the repository."""
    (tmp_path / "tiny.py").write_text(CODE)
    apps = [
        {
            "appID": name,
            "appDirPath": ".",
            "appPort": 8700 + number,
            "daprHTTPPort": 3700 + number,
            "daprGRPCPort": 5700 + number,
            "daprInternalGRPCPort": 5800 + number,
            "metricsPort": 9700 + number,
            "command": [sys.executable, "-m", "perdure.cli.serve", "tiny:app"],
        }
        for number, name in enumerate(APPS)
    ]
    common = {
        "resourcesPaths": [str(ROOT / "components")],
        "configFilePath": str(ROOT / "deploy/local/config.yaml"),
        "placementHostAddress": "localhost:16005",
        "schedulerHostAddress": "localhost:16006",
    }
    (tmp_path / "dapr.yaml").write_text(yaml.safe_dump({"version": 1, "common": common, "apps": apps}))
    return tmp_path


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(timeout=10) as client:
        yield client


def platform(project: Path, **wishes: object) -> Platform:
    home = project / ".perdure"
    return Platform(home, run_file=project / "dapr.yaml", ports="auto", **wishes)  # type: ignore[arg-type]


async def gone(*pids: int | None) -> None:
    """Return when none of them runs any more; other processes tell nobody when they end, so they are asked."""
    async with asyncio.timeout(20):
        while any(pid and psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            await asyncio.sleep(0.02)


async def test_services_call_each_other_keep_state_and_end_without_trace(
    project: Path, http: httpx2.AsyncClient
) -> None:
    """Invocation through both sidecars and a saved value work; afterwards no process and no record is left."""
    async with platform(project, service_env={"registry": {"SAID": "hello"}}) as running:
        assistant = running.app("assistant")
        answer = await http.get(f"{assistant.dapr_url}/v1.0/invoke/registry/method/who")
        assert answer.json()["said"] == "hello"
        saved = await http.post(f"{assistant.dapr_url}/v1.0/state/agentstatestore", json=[{"key": "k", "value": 1}])
        assert saved.is_success
        pids = list(running.pids.values())
        assert len(pids) == 3 + 2 * len(APPS)
        assert None not in pids
    await gone(*pids)
    assert read_record(project / ".perdure") is None


@pytest.mark.parametrize("victim", ["assistant", "assistant.sidecar", "valkey", "scheduler", "placement"])
async def test_what_is_killed_comes_back_and_the_data_is_there(
    project: Path, http: httpx2.AsyncClient, victim: str
) -> None:
    """After SIGKILL of any process the platform has it running again, and what was acknowledged is still stored."""
    async with platform(project) as running:
        store = f"{running.app('assistant').dapr_url}/v1.0/state/agentstatestore"
        assert (await http.post(store, json=[{"key": "k", "value": "kept"}])).is_success
        before = await running.kill(victim)
        await running.start(victim)
        await running.ready(timeout_s=30)
        assert running.pids[victim] not in {None, before}
        died, started = (
            next(event.at_s for event in reversed(running.events) if (event.name, event.what) == (victim, what))
            for what in (Happening.DIED, Happening.STARTED)
        )
        assert started - died < 0.1
        async with asyncio.timeout(20):  # the sidecar finds its store again by itself
            while (answer := await http.get(f"{store}/k")).status_code != httpx2.codes.OK:
                await asyncio.sleep(0.05)
        assert answer.json() == "kept"


async def test_a_test_can_decide_itself_what_comes_back(project: Path, http: httpx2.AsyncClient) -> None:
    """Without restart a killed service stays down; frozen ones answer again when thawed; replicas share an app-id."""
    async with platform(project, restart=False, services=["registry"], replicas={"registry": 2}) as running:
        first, second = running.app("registry"), running.app("registry-2")
        assert (first.app_id, second.app_id) == ("registry", "registry")
        await running.kill("registry")
        assert running.pids["registry"] is None
        assert (await http.get(f"{second.url}/who")).json()["app"] == "registry"
        running.signal("registry-2", signal.SIGSTOP)
        with pytest.raises(httpx2.TimeoutException):
            await http.get(f"{second.url}/who", timeout=0.3)
        running.signal("registry-2", signal.SIGCONT)
        await running.start("registry")
        await running.ready("registry", "registry-2")
        with pytest.raises(NotFound, match=r"there are: registry, registry-2"):
            running.app("weather")


async def test_two_platforms_run_side_by_side_as_strangers(project: Path, http: httpx2.AsyncClient) -> None:
    """The same app-ids on one machine: each calls its own neighbour, and neither sees the other's state."""
    one = platform(project, service_env={"registry": {"SAID": "one"}})
    two = Platform(
        project / "other",
        run_file=project / "dapr.yaml",
        ports="auto",
        services=["registry", "assistant"],
        service_env={"registry": {"SAID": "two"}},
    )
    async with one, two:
        for running, said in ((one, "one"), (two, "two")):
            for _ in range(5):
                answer = await http.get(f"{running.app('assistant').dapr_url}/v1.0/invoke/registry/method/who")
                assert answer.json()["said"] == said


async def test_a_second_start_in_the_same_home_is_refused(project: Path) -> None:
    """The message says who runs there and how to go on; the first one is not disturbed."""
    async with platform(project, services=[]) as running:
        before = running.pids
        with pytest.raises(Conflict, match=rf"process {os.getpid()}.*perdure dev down"):
            await platform(project, services=[]).__aenter__()
        assert running.pids == before


async def test_a_busy_port_is_named_before_anything_starts(project: Path) -> None:
    """The service whose port is taken is named, and nothing was started or left."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        base = taken.getsockname()[1]
        with pytest.raises(Conflict, match=rf"port {base}, wanted for valkey"):
            await Platform(project / "home", run_file=project / "dapr.yaml", ports=base, services=[]).__aenter__()
    assert read_record(project / "home") is None


async def test_a_service_that_cannot_start_is_shown_with_its_last_words(project: Path) -> None:
    """A mistake in a service ends the start with the service's own error, and ends everything else."""
    (project / "tiny.py").write_text("raise SystemExit('no such room')")
    broken = platform(project, services=["registry"])
    with pytest.raises(Failed, match=r"registry is not ready[\s\S]*no such room"):
        await broken.__aenter__()
    await gone(*broken.pids.values())


async def perdure(project: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in the project; its exit code and all it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure.cli.main", *arguments),
        cwd=project,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_the_commands_start_show_restart_and_end(project: Path) -> None:
    """up --detach, status, restart --kill, logs and down tell what they did; a second down is fine."""
    code, said = await perdure(project, "dev", "up", "--detach", "--ports", "auto")
    assert code == 0, said
    assert "ready. Ctrl-C ends everything" in said
    record = read_record(project / ".perdure")
    assert record is not None
    try:
        assert (await perdure(project, "dev", "up"))[0] == 1
        code, said = await perdure(project, "dev", "restart", "registry", "--kill")
        assert (code, "registry is ready again" in said) == (0, True)
        code, said = await perdure(project, "dev", "status")
        assert (code, said.count("ready"), "restarted 1x" in said) == (0, 8, True)
        code, said = await perdure(project, "dev", "logs", "nobody")
        assert (code, "there are: assistant, " in said) == (1, True)
    finally:
        code, said = await perdure(project, "dev", "down")
    assert (code, said) == (0, "stopped; nothing is left running\n")
    await gone(record.supervisor, *(item.pid for item in record.processes))
    assert (await perdure(project, "dev", "down")) == (0, "nothing runs here\n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_nothing_outlives_the_foreground(project: Path, how: signal.Signals) -> None:
    """Ctrl-C ends everything in order; even when the platform itself is killed its processes end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure.cli.main", "dev", "up", "--ports", "auto"),
        cwd=project,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"ready." not in await process.stderr.readline():
            assert process.returncode is None
    record = read_record(project / ".perdure")
    assert record is not None
    process.send_signal(how)
    await process.communicate()
    assert process.returncode == (0 if how is signal.SIGINT else -signal.SIGKILL)
    await gone(*(item.pid for item in record.processes))
    assert (await perdure(project, "dev", "status"))[0] == 1


async def test_plain_dapr_run_works_on_the_platforms_servers(project: Path, http: httpx2.AsyncClient) -> None:
    """`dapr run -f dapr.yaml` starts the same services on the files as they are, and ends with the platform."""
    running = Platform(project / ".perdure", run_file=project / "dapr.yaml", with_dapr_cli=True)
    async with running:
        answer = await http.get(f"{running.app('assistant').dapr_url}/v1.0/invoke/registry/method/who")
        assert answer.json()["app"] == "registry"
        children = psutil.Process(running.pids["dapr-run"]).children(recursive=True)
        assert len(children) == 2 * len(APPS)
    await gone(*(child.pid for child in children))


def test_the_record_is_json_for_other_programs(tmp_path: Path) -> None:
    """Who has another language reads `dev.json`."""
    from perdure.dev.record import ProcessRecord, Record, write_record

    record = Record(1, "m", "ready", "now", {"valkey": 2}, (ProcessRecord("valkey", 3, 1, "x"),))
    write_record(tmp_path, record)
    assert json.loads((tmp_path / "dev.json").read_text())["processes"][0]["name"] == "valkey"
    assert read_record(tmp_path) == record
