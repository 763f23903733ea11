"""kill -9 of the shipped services: sensor runs go through four apps, notes and bookings are made, each exactly once."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from killer import Killer
from landscape import Stubborn, complaints, nothing_left, run_file, until
from perdure.dev import Platform

pytestmark = [pytest.mark.sidecar, pytest.mark.chaos, pytest.mark.timeout(1800)]

STEPS = {
    "data-collector": "collection_count",
    "data-processor": "processed_count",
    "data-analyzer": "analysis_count",
    "alert-manager": "alert_count",
}
APPS = ("orchestrator", "assistant", *STEPS)
VICTIMS = [
    *((app,) for app in APPS),
    *((f"{app}.sidecar",) for app in APPS),
    *((app, f"{app}.sidecar") for app in ("orchestrator", "data-analyzer")),
    ("scheduler",),
    ("valkey",),
]

PACE_S = 0.2
"""Between two requests of a caller: the machine must be busy, not choked, or only its choking is measured."""


async def sensor_runs(client: Stubborn, name: str, stop: asyncio.Event, done: list[dict[str, Any]]) -> None:
    """Runs of the pipeline, one after the other."""
    number = 0
    while not stop.is_set():
        number += 1
        body = {"pipeline": "sensors", "input": {"anomaly_chance": 1}, "key": f"{name}-{number}", "wait_s": 1}
        run = (await client.begin("/runs", **body))["id"]
        shown = await client.ends(f"/runs/{run}")
        again = await client.begin("/runs", **body)
        assert (again["id"], again["outputs"]) == (run, shown["outputs"])
        done.append(shown)
        await asyncio.sleep(PACE_S)


async def requests(client: Stubborn, name: str, stop: asyncio.Event, done: list[dict[str, Any]]) -> None:
    """Turns of the assistant: one note and one booking each."""
    number = 0
    while not stop.is_set():
        number += 1
        text = f"Note {name} {number}. Book room {name}{number} for 2026-12-01"
        body = {"text": text, "key": f"{name}-{number}", "session": name, "wait_s": 1}
        turn = (await client.begin("/turns", **body))["id"]
        shown = await client.ends(f"/turns/{turn}")
        done.append({**shown, "note": f"{name} {number}", "room": f"{name}{number}"})
        await asyncio.sleep(PACE_S)


async def test_the_shipped_services_survive_kills(
    tmp_path: Path, http: httpx2.AsyncClient, dice: random.Random, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """While sensor runs and turns go on, any of twelve processes and both servers are killed at random moments."""
    file = run_file(tmp_path)
    async with Platform(tmp_path / ".perdure", run_file=file, ports="auto", services=APPS) as platform:
        orchestrator = Stubborn(http, lambda: platform.app("orchestrator").url)
        assistant = Stubborn(http, lambda: platform.app("assistant").url)
        runs: list[dict[str, Any]] = []
        turns: list[dict[str, Any]] = []
        stop = asyncio.Event()
        killer = Killer(platform, VICTIMS, dice)
        async with asyncio.TaskGroup() as group:
            for at in range(3):
                group.create_task(sensor_runs(orchestrator, f"run{at}", stop, runs))
            for at in range(2):
                group.create_task(requests(assistant, f"desk{at}", stop, turns))
            await killer.kill(kills, haste=0.4)
            stop.set()
        states = {app: await _state(http, platform, app) for app in STEPS}
        check_runs(runs, states)
        check_turns(turns, tmp_path / ".perdure" / "assistant")

        async def nothing_open() -> bool:
            open_runs = [(await client.send("GET", "/runs")).json()["runs"] for client in (orchestrator, assistant)]
            return open_runs == [[], []]

        await until(nothing_open, "no run is open", 60)
        bad = complaints(platform, list(APPS))
        assert not bad, "\n".join(bad[:10])
    await nothing_left(platform, tmp_path)
    with capsys.disabled():
        print(f"\n{killer.report()}\n{len(runs)} sensor runs, {len(turns)} turns")  # noqa: T201


async def _state(http: httpx2.AsyncClient, platform: Platform, app: str) -> dict[str, Any]:
    answer = await Stubborn(http, lambda: platform.app(app).url).send("GET", "/state")
    (state,) = answer.json().values()
    return dict(state)


def check_runs(runs: list[dict[str, Any]], states: dict[str, dict[str, Any]]) -> None:
    """All done, each collection went through each service once, and nothing was counted twice."""
    assert {run["status"] for run in runs} == {"done"}, [run for run in runs if run["status"] != "done"]
    collections = [run["outputs"]["collect"]["collection_id"] for run in runs]
    assert sorted(collections) == list(range(1, len(runs) + 1))
    for run in runs:
        number = run["outputs"]["collect"]["collection_id"]
        assert {output["collection_id"] for output in run["outputs"].values()} == {number}
    alerts = sum(len(run["outputs"]["alert"]["alerts"]) for run in runs)
    expected = {app: len(runs) for app in STEPS} | {"alert-manager": alerts}
    assert {app: state[STEPS[app]] for app, state in states.items()} == expected


def check_turns(turns: list[dict[str, Any]], folder: Path) -> None:
    """Each note is one file, each booking one line, and the answer tells both."""
    assert {turn["status"] for turn in turns} <= {"done"}
    notes = Counter(file.read_text().strip() for file in (folder / "notes").glob("*.txt"))
    booked = Counter(json.loads(line)["room"] for line in (folder / "bookings.jsonl").read_text().splitlines())
    assert notes == Counter(turn["note"] for turn in turns)
    assert booked == Counter(turn["room"] for turn in turns)
    for turn in turns:
        assert f"Booked room {turn['room']}" in turn["answer"], turn
        assert f"Noted '{turn['note']}'" in turn["answer"], turn
