"""The services of the repository's `dapr.yaml`, working in a test's own folder, and a client that never gives up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import psutil
import yaml

from perdure.dev import Platform
from perdure.dev.child import Happening

ROOT = Path(__file__).parents[1]
TERMINAL = ("done", "failed", "cancelled")
ASK_EVERY_S = 0.05
COMPLAINT = re.compile(
    "Traceback|never awaited|Task exception|panic:|run_parked|drive_failed|tick_failed|action_failed|run_not_adopted"
)


def run_file(folder: Path, targets: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None) -> Path:
    """`dapr.yaml` with every process working in `folder`; `targets` replaces the ASGI application of some app-ids."""
    entry = yaml.safe_load((ROOT / "dapr.yaml").read_text())
    common = entry["common"] | {
        "resourcesPaths": [str(ROOT / "components")],
        "configFilePath": str(ROOT / "deploy/local/config.yaml"),
        "env": {"PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in (".", "src", "tests")), **(env or {})},
    }
    apps = []
    for app in entry["apps"]:
        target = (targets or {}).get(app["appID"], app["command"][-1])
        apps.append(app | {"command": [sys.executable, "-m", "perdure.cli.serve", target]})
    path = folder / "dapr.yaml"
    path.write_text(yaml.safe_dump(entry | {"common": common, "apps": apps}))
    return path


async def until(check: Callable[[], Awaitable[Any]], what: str, within_s: float = 30.0) -> Any:
    """The first true answer of `check`; other processes tell nobody, so they are asked."""
    last: Any = None
    try:
        async with asyncio.timeout(within_s):
            while not (last := await check()):
                await asyncio.sleep(ASK_EVERY_S)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None
    return last


class Stubborn:
    """Repeats a request over any connection error or passing refusal until it is answered, within `within_s`."""

    def __init__(self, http: httpx2.AsyncClient, base: Callable[[], str], within_s: float = 90.0) -> None:
        self._http = http
        self._base = base
        self._within_s = within_s
        self.repeated = 0

    async def send(self, method: str, path: str, body: object = None) -> httpx2.Response:
        last = "nothing"
        try:
            async with asyncio.timeout(self._within_s):
                while True:
                    try:
                        answer = await self._http.request(method, self._base() + path, json=body)
                    except httpx2.TransportError as error:
                        last = repr(error)
                    else:
                        if answer.status_code < 500 and answer.status_code not in (408, 429):
                            return answer
                        last = answer.text
                        assert '"code":"internal"' not in last, last  # a defect, not bad luck
                    self.repeated += 1
                    await asyncio.sleep(ASK_EVERY_S)
        except TimeoutError:
            raise AssertionError(f"{method} {path} got no answer in {self._within_s:g} s, at last: {last}") from None

    async def begin(self, path: str, **body: object) -> dict[str, Any]:
        """What is accepted at `path` (POST); acknowledged when this returns."""
        answer = await self.send("POST", path, body)
        assert answer.status_code in (200, 202), answer.text
        return dict(answer.json())

    async def rests(self, path: str) -> dict[str, Any]:
        """What is at `path` once it ended or waits for a person."""

        async def resting() -> Any:
            answer = await self.send("GET", path)
            assert answer.status_code == 200, answer.text
            shown = answer.json()
            return shown if shown["status"] in TERMINAL or shown.get("waiting_for") else None

        return dict(await until(resting, f"{path} ends or waits", self._within_s))

    async def ends(self, path: str) -> dict[str, Any]:
        """What is at `path` once it ended."""

        async def ended() -> Any:
            answer = await self.send("GET", path)
            assert answer.status_code == 200, answer.text
            return answer.json() if answer.json()["status"] in TERMINAL else None

        return dict(await until(ended, f"{path} ends", self._within_s))

    async def events(self, path: str) -> list[dict[str, Any]]:
        """The events of a run that ended."""
        answer = await self.send("GET", f"{path}/events")
        assert answer.status_code == 200, answer.text
        return [json.loads(data) for data in re.findall(r"^data: (.*)$", answer.text, re.MULTILINE)]


def processes_ever(platform: Platform) -> set[int]:
    """The ids of all processes that the platform ever started."""
    return {int(event.detail.removeprefix("pid ")) for event in platform.events if event.what is Happening.STARTED}


async def nothing_left(platform: Platform, folder: Path) -> None:
    """Return when none of the platform's processes runs, nor any other that works in `folder` or was told of it."""
    pids = processes_ever(platform)

    async def gone() -> bool:
        return not [process for process in psutil.process_iter() if _of(process, pids, folder)]

    await until(gone, f"no process of {folder} is left", 20)


def _of(process: psutil.Process, pids: set[int], folder: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.pid in pids or str(folder) in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def complaints(platform: Platform, names: list[str]) -> list[str]:
    """What the services' logs hold that no operator should ever see."""
    lines = [(name, line) for name in names for line in platform.log(name).read_text(errors="replace").splitlines()]
    return [f"{name}: {line[:300]}" for name, line in lines if COMPLAINT.search(line)]
