"""The sensor pipeline on real processes that are killed at random moments."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure.dev import Platform

pytestmark = [pytest.mark.sidecar, pytest.mark.chaos, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("PERDURE_CHAOS_KILLS", "4")) * 2
RUNS_A_KILL = 5
CHAIN = ("data-collector", "data-processor", "data-analyzer", "alert-manager")
COUNTERS = {
    "data-collector": "collection_count",
    "data-processor": "processed_count",
    "data-analyzer": "analysis_count",
}
SERVICES = (*CHAIN, "orchestrator")
VICTIMS = ("orchestrator", *SERVICES, *(f"{name}.sidecar" for name in SERVICES), "scheduler", "valkey")

AWAY = (httpx2.TransportError, httpx2.HTTPStatusError)
"""What a caller sees of a process that was killed: it repeats, with the same key."""


class Caller:
    """Calls services through whichever sidecar is theirs, until they answer."""

    def __init__(self, running: Platform, http: httpx2.AsyncClient) -> None:
        self._running, self._http = running, http

    async def ask(self, app: str, method: str, path: str, body: Any = None) -> Any:
        async with asyncio.timeout(90):
            while True:
                try:
                    url = f"{self._running.app(app).dapr_url}/v1.0/invoke/{app}/method{path}"
                    answer = await self._http.request(method, url, json=body)
                    answer.raise_for_status()
                    return answer.json()
                except AWAY:
                    await asyncio.sleep(0.05)


async def test_every_acknowledged_run_ends_once_and_no_step_is_handled_twice(tmp_path: Path) -> None:
    """Counters grow by exactly one for each run, whatever is killed while runs go on; nothing stays behind."""
    dice = random.Random(int(os.environ.get("PERDURE_CHAOS_SEED", "7")))
    run_file = ROOT / "dapr.yaml"
    home = tmp_path / "home"
    async with (
        Platform(home, run_file=run_file, ports="auto", services=list(SERVICES)) as running,
        httpx2.AsyncClient(timeout=20) as http,
    ):
        caller = Caller(running, http)
        ids: list[str] = []

        async def begin(number: int) -> None:
            body = {"pipeline": "sensors", "input": {"anomaly_chance": 0.5}, "key": f"run-{number}"}
            ids.append((await caller.ask("orchestrator", "POST", "/runs", body))["id"])

        async with asyncio.TaskGroup() as group:
            for kill in range(KILLS):
                for number in range(RUNS_A_KILL):
                    group.create_task(begin(kill * RUNS_A_KILL + number))
                await asyncio.sleep(dice.uniform(0, 0.3))
                victim = dice.choice(VICTIMS)
                await running.kill(victim)
                await running.start(victim)
        await running.ready(timeout_s=60)
        assert len(set(ids)) == KILLS * RUNS_A_KILL
        ended = [await _ended(caller, run) for run in ids]
        assert {run["status"] for run in ended} == {"done"}, [run.get("error") for run in ended if "error" in run]
        for app, counter in COUNTERS.items():
            (state,) = (await caller.ask(app, "GET", "/state")).values()
            assert state[counter] == len(ids), f"{app} handled {state[counter]} steps for {len(ids)} runs"
        numbers = [run["outputs"]["alert"]["collection_id"] for run in ended]
        assert sorted(numbers) == list(range(1, len(ids) + 1))
        async with asyncio.timeout(90):  # the list is tidied by the sweep
            while (await caller.ask("orchestrator", "GET", "/runs"))["runs"]:
                await asyncio.sleep(0.5)


async def _ended(caller: Caller, run: str) -> Any:
    shown: Any = None
    try:
        async with asyncio.timeout(90):
            while shown is None or shown["status"] not in ("done", "failed", "cancelled"):
                shown = await caller.ask("orchestrator", "GET", f"/runs/{run}")
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"run {run} is stuck: {shown}")
    return shown
