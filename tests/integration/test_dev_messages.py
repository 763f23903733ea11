"""What the components promise about messages: while a subscriber or its sidecar is dead, nothing is lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import yaml

from perdure.dev import Platform

pytestmark = [pytest.mark.sidecar, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
CODE = """
import asyncio
from pathlib import Path
from fastapi import FastAPI, Request
app = FastAPI()
@app.get("/healthz")
@app.get("/readyz")
def fine() -> dict[str, bool]:
    return {"ok": True}
@app.get("/dapr/subscribe")
def subscribe() -> list[dict[str, str]]:
    return [{"pubsubname": "messagepubsub", "topic": "numbers", "route": "/numbers"}]
@app.post("/numbers")
async def numbers(request: Request) -> dict[str, str]:
    number = (await request.json())["data"]
    with Path("begun").open("a") as file:
        file.write(f"{number}\\n")
    while Path("hold").exists():
        await asyncio.sleep(0.01)
    with Path("seen").open("a") as file:
        file.write(f"{number}\\n")
    return {"status": "SUCCESS"}
"""


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    """One publisher and one subscriber on the repository's components; nothing comes back by itself."""
    (tmp_path / "tiny.py").write_text(CODE)
    entry = yaml.safe_load((ROOT / "dapr.yaml").read_text())
    common = entry["common"] | {
        "resourcesPaths": [str(ROOT / "components")],
        "configFilePath": str(ROOT / "deploy/local/config.yaml"),
    }
    command = [sys.executable, "-m", "perdure.cli.serve", "tiny:app"]
    apps = [app | {"command": command} for app in entry["apps"] if app["appID"] in {"assistant", "registry"}]
    (tmp_path / "dapr.yaml").write_text(yaml.safe_dump(entry | {"common": common, "apps": apps}))
    async with Platform(
        tmp_path / ".perdure", run_file=tmp_path / "dapr.yaml", ports="auto", services=["registry"], restart=False
    ) as running:
        yield running


async def publish(platform: Platform, number: int) -> None:
    async with httpx2.AsyncClient(timeout=20) as client:
        url = f"{platform.app('registry').dapr_url}/v1.0/publish/messagepubsub/numbers"
        (await client.post(url, json=number)).raise_for_status()


async def written(path: Path, wanted: set[int], within_s: float) -> list[int]:
    """What `path` holds when all of `wanted` is in it."""
    async with asyncio.timeout(within_s):
        while True:
            found = [int(line) for line in path.read_text().split()] if path.exists() else []
            if wanted <= set(found):
                return found
            await asyncio.sleep(0.05)


async def test_messages_wait_for_a_dead_subscriber(platform: Platform, tmp_path: Path) -> None:
    """What is published while the app is dead arrives after it is back, and nothing that was seen comes again."""
    await publish(platform, 0)
    await written(tmp_path / "seen", {0}, 20)
    await platform.kill("registry")
    for number in range(1, 6):
        await publish(platform, number)
    await asyncio.sleep(8)  # longer than processingTimeout, after which a sidecar could give up
    await platform.start("registry")
    assert sorted(await written(tmp_path / "seen", set(range(6)), 30)) == list(range(6))


async def test_a_message_whose_sidecar_dies_is_delivered_again(platform: Platform, tmp_path: Path) -> None:
    """A message that was being handled when app and sidecar died comes again within processingTimeout."""
    (tmp_path / "hold").touch()
    await publish(platform, 7)
    await written(tmp_path / "begun", {7}, 20)
    await asyncio.gather(platform.kill("registry"), platform.kill("registry.sidecar"))
    (tmp_path / "hold").unlink()
    await platform.start("registry.sidecar")
    await platform.start("registry")
    assert await written(tmp_path / "seen", {7}, 40) == [7]
