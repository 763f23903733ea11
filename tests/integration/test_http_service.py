"""A served application beside a real sidecar: the same HTTP directly and through service invocation."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from perdure.dev import Platform

pytestmark = [pytest.mark.sidecar, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
TOKEN = "the-sidecar-says-this"
CODE = """
import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from perdure import App, DurableAgent, tool
from perdure.sidecar.ports import Delivery

@tool(effect="once", approval=True)
async def send_money(amount: int) -> str:
    "Send money."
    return f"sent {amount}"

@tool(effect="idempotent")
async def ponder() -> str:
    "Takes until somebody says go."
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    return "pondered"

@asynccontextmanager
async def inbox(service):
    async def take(message):
        with open(f"inbox.{message.id}", "w") as file:
            file.write(str(message.data))
        return Delivery.SUCCESS
    bus = service.doors.buses["messagepubsub"]
    bus.subscribe("orders", take, dead_letter="orders.dead-letter")
    bus.subscribe("orders.dead-letter", take)
    yield

def echo(request):
    return "heard: " + request.messages[-1].text

app = App(
    agents=[
        DurableAgent("weather", model=echo),
        DurableAgent("banker", model='scripted:@send_money {"amount": 5} | {result}', tools=[send_money]),
        DurableAgent("thinker", model="scripted:@ponder {} | {result}", tools=[ponder]),
    ],
    parts=[inbox],
)
"""


@dataclass(frozen=True)
class Bank:
    """The service, directly and through the sidecar of another."""

    platform: Platform
    folder: Path
    client: httpx2.AsyncClient

    @property
    def direct(self) -> str:
        return self.platform.app("assistant").url

    @property
    def invoked(self) -> str:
        return f"{self.platform.app('registry').dapr_url}/v1.0/invoke/assistant/method"

    async def ask(self, base: str, **body: object) -> httpx2.Response:
        return await self.client.post(f"{base}/turns", json=body, headers=self.token(base))

    def token(self, base: str) -> dict[str, str]:
        return {"dapr-api-token": TOKEN} if base == self.direct else {}


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Bank]:
    (tmp_path / "bank.py").write_text(CODE)
    command = [sys.executable, "-m", "perdure.cli.serve", "bank:app"]
    apps = [
        {
            "appID": name,
            "appDirPath": ".",
            "appPort": 8700 + n,
            "daprHTTPPort": 3700 + n,
            "daprGRPCPort": 5700 + n,
            "daprInternalGRPCPort": 5800 + n,
            "metricsPort": 9700 + n,
            "command": command,
        }
        for n, name in enumerate(("assistant", "registry"))
    ]
    common = {
        "resourcesPaths": [str(ROOT / "components")],
        "configFilePath": str(ROOT / "deploy/local/config.yaml"),
        "placementHostAddress": "localhost:16005",
        "schedulerHostAddress": "localhost:16006",
        "enableAppHealthCheck": True,
        "appHealthCheckPath": "/healthz",
        "appHealthProbeInterval": 1,
        "appHealthThreshold": 2,
    }
    run_file = tmp_path / "dapr.yaml"
    run_file.write_text(yaml.safe_dump({"version": 1, "common": common, "apps": apps}))
    env = {"APP_API_TOKEN": TOKEN}
    async with (
        Platform(tmp_path / ".perdure", run_file=run_file, ports="auto", env=env) as platform,
        httpx2.AsyncClient(timeout=40) as client,
    ):
        yield Bank(platform, tmp_path, client)


async def test_http_is_the_same_directly_and_through_invocation(bank: Bank) -> None:
    """Turns, errors, approvals and event streams of a real service, asked both ways."""
    for base in (bank.direct, bank.invoked):
        done = await bank.ask(base, agent="weather", text="hi", session="s", key=f"k-{base}")
        assert (done.status_code, done.json()["answer"]) == (200, "heard: hi")
        again = await bank.ask(base, agent="weather", text="hi", session="s", key=f"k-{base}")
        assert again.json()["id"] == done.json()["id"]
        other = await bank.ask(base, agent="weather", text="ho", session="s", key=f"k-{base}")
        assert (other.status_code, other.json()["code"]) == (409, "key_reused")
        unknown = await bank.ask(base, agent="wether", text="hi")
        assert unknown.headers["content-type"] == "application/problem+json"
        assert unknown.json()["detail"] == "agent 'wether' is unknown; registered: banker, thinker, weather"
        wrong = await bank.ask(base, agent="weather", text="hi", wait_s=False)
        assert (wrong.status_code, wrong.json()["code"]) == (400, "request_invalid")
        large = await bank.ask(base, agent="weather", text="x" * 2_000_000)
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
        await _approve(bank, base)
        await _follow(bank, base, done.json()["id"])
    shown = (await bank.client.get(f"{bank.invoked}/sessions/s?agent=weather")).json()
    assert [turn["answer"] for turn in shown["turns"]] == ["heard: hi"] * 2


async def _approve(bank: Bank, base: str) -> None:
    asked = (await bank.ask(base, agent="banker", text="pay")).json()
    assert asked["status"] == "waiting"
    (question,) = asked["waiting_for"]
    where = f"{base}/turns/{asked['id']}/approvals/{question['call']}"
    decision = {"decision": "approve", "digest": question["digest"]}
    decided = await bank.client.post(where, json=decision, headers=bank.token(base))
    assert decided.status_code == 200, decided.text
    turn = await _ended(bank, asked["id"])
    assert (turn["status"], turn["answer"]) == ("done", "sent 5")


async def _follow(bank: Bank, base: str, turn: str) -> None:
    whole = await bank.client.get(f"{base}/turns/{turn}/events", headers=bank.token(base))
    ids = re.findall(r"^id: (.*)$", whole.text, re.MULTILINE)
    headers = {**bank.token(base), "Last-Event-ID": ids[0]}
    rest = await bank.client.get(f"{base}/turns/{turn}/events", headers=headers)
    assert re.findall(r"^id: (.*)$", rest.text, re.MULTILINE) == ids[1:]
    first = json.loads(re.findall(r"^data: (.*)$", whole.text, re.MULTILINE)[0])
    assert first["by"] == ("" if base == bank.direct else "registry")


async def _ended(bank: Bank, turn: str) -> dict[str, Any]:
    """The turn once it ended: its event stream closes then. A stream cut by a restart is followed again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await bank.client.get(f"{bank.direct}/turns/{turn}/events", headers=bank.token(bank.direct))
                shown = await bank.client.get(f"{bank.direct}/turns/{turn}", headers=bank.token(bank.direct))
            except httpx2.TransportError:
                await asyncio.sleep(0.05)  # another process starts; it tells nobody but who asks
                continue
            if shown.status_code == 200 and shown.json()["status"] in ("done", "failed", "cancelled"):
                return dict(shown.json())
            await asyncio.sleep(0.05)


async def test_without_the_sidecars_token_only_probes_answer(bank: Bank) -> None:
    refused = await bank.client.post(f"{bank.direct}/turns", json={"agent": "weather", "text": "hi"})
    assert (refused.status_code, refused.json()["code"]) == (401, "token_missing")
    assert (await bank.client.get(f"{bank.direct}/readyz")).status_code == 200


async def test_messages_arrive_and_what_is_no_message_goes_to_the_dead_letters(bank: Bank) -> None:
    publish = f"{bank.platform.app('registry').dapr_url}/v1.0/publish/messagepubsub/orders"
    headers = {"content-type": "application/cloudevents+json"}
    good = {"specversion": "1.0", "id": "m-1", "source": "shop", "type": "order", "data": {"n": 1}}
    assert (await bank.client.post(publish, json=good, headers=headers)).is_success
    bad = {**good, "id": "m-2", "type": ""}
    assert (await bank.client.post(publish, json=bad, headers=headers)).is_success
    async with asyncio.timeout(20):
        while not ((bank.folder / "inbox.m-1").exists() and _dropped(bank) == ["orders", "orders.dead-letter"]):
            await asyncio.sleep(0.05)  # files written by another process
    assert "n" in (bank.folder / "inbox.m-1").read_text()
    assert not (bank.folder / "inbox.m-2").exists()


def _dropped(bank: Bank) -> list[str]:
    """The topics of which the services could not understand a message, in the order of their names.

    What is no message is none on the dead-letter topic either, so there it is dropped once more, for good.
    """
    lines = [line for app in ("assistant", "registry") for line in bank.platform.log(app).read_text().splitlines()]
    said = [json.loads(line) for line in lines if "message_dropped" in line]
    return sorted({each["topic"] for each in said})


async def test_a_turn_survives_the_kill_of_its_service(bank: Bank) -> None:
    turn = (await bank.ask(bank.invoked, agent="thinker", text="think", wait_s=0)).json()["id"]
    await bank.platform.kill("assistant")
    (bank.folder / "go").touch()
    await bank.platform.ready("assistant")
    assert (await _ended(bank, turn))["answer"] == "pondered"


@pytest.mark.parametrize("way", ["direct", "invoked"])
async def test_events_come_while_the_turn_goes_on_and_go_on_after_a_kill(bank: Bank, way: str) -> None:
    """A reader sees what happened at once; cut by the kill of the service, it resumes behind the last event it saw."""
    base = getattr(bank, way)
    turn = (await bank.ask(base, agent="thinker", text="think", wait_s=0)).json()["id"]
    where = f"{base}/turns/{turn}/events"
    seen = await _until_cut(bank, where, bank.token(base))
    assert seen
    (bank.folder / "go").touch()
    await bank.platform.ready("assistant", "assistant.sidecar")
    headers = {**bank.token(base), "Last-Event-ID": seen[-1]}
    async with asyncio.timeout(20):
        while (rest := await bank.client.get(where, headers=headers)).status_code != 200:
            await asyncio.sleep(0.1)  # the sidecar learns by probing that its app is back
    events = re.findall(r"^event: (.*)$", rest.text, re.MULTILINE)
    assert events[-1] == "closed"
    assert not set(seen) & set(re.findall(r"^id: (.*)$", rest.text, re.MULTILINE))


async def _until_cut(bank: Bank, where: str, headers: dict[str, str]) -> list[str]:
    """The ids of the events seen until the service was killed, which is done when the model has replied."""
    seen = []
    with suppress(httpx2.TransportError):  # directly the stream breaks off, through the sidecar it may just end
        async with bank.client.stream("GET", where, headers=headers) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("id: "):
                    seen.append(line.removeprefix("id: "))
                if line == "event: model_replied":
                    await bank.platform.kill("assistant")
    return seen


async def test_on_sigterm_who_waits_is_answered_and_the_turn_goes_on_afterwards(bank: Bank) -> None:
    """A request that waits for its turn gets 202 at once; nothing is lost, and the log says nothing bad."""
    waiting = asyncio.create_task(bank.ask(bank.direct, agent="thinker", text="think", key="t"))
    async with asyncio.timeout(20):
        while not (listed := await bank.client.get(f"{bank.direct}/runs", headers=bank.token(bank.direct))).json()[
            "runs"
        ]:
            await asyncio.sleep(0.02)
    assert listed.status_code == 200
    bank.platform.signal("assistant", signal.SIGTERM)
    answered = await asyncio.wait_for(waiting, 5)
    assert answered.status_code == 202
    (bank.folder / "go").touch()
    await bank.platform.ready("assistant")
    assert (await _ended(bank, answered.json()["id"]))["answer"] == "pondered"
    assert "Traceback" not in bank.platform.log("assistant").read_text()


async def test_a_service_whose_sidecar_comes_late_is_alive_and_says_so(bank: Bank) -> None:
    """It answers 503 until the sidecar is there, then it is up without a restart, with its subscriptions."""
    for name in ("assistant", "assistant.sidecar"):
        await bank.platform.stop(name)
    await bank.platform.start("assistant")
    ready = await _readiness(bank)
    assert ready.status_code == 503
    assert "the sidecar did not answer" in ready.json()["checks"]["service"]
    asked = await bank.ask(bank.direct, agent="weather", text="hi")
    assert (asked.status_code, asked.json()["code"], asked.headers["retry-after"]) == (503, "starting", "1")
    assert (await bank.client.get(f"{bank.direct}/healthz")).status_code == 200
    await bank.platform.start("assistant.sidecar")
    await bank.platform.ready("assistant", "assistant.sidecar")
    assert (await bank.ask(bank.invoked, agent="weather", text="hi")).json()["answer"] == "heard: hi"
    log = bank.platform.log("assistant").read_text()
    assert "Traceback" not in log


async def test_a_missing_component_is_named_and_found_when_it_comes(bank: Bank) -> None:
    """Without the store of its turns a service stays alive, refuses work with the reason, and says it once."""
    component = ROOT / "components/conversationstore.yaml"
    resources = bank.folder / ".perdure/resources/assistant"
    taken = {path.name: path.read_text() for path in resources.iterdir() if "conversationstore" in path.read_text()}
    assert taken, f"{component.name} is rendered into {resources}"
    await bank.platform.stop("assistant")
    await bank.platform.stop("assistant.sidecar")
    for name in taken:
        (resources / name).unlink()
    await bank.platform.start("assistant.sidecar")
    await bank.platform.start("assistant")
    await _readiness(bank)
    asked = await bank.ask(bank.direct, agent="weather", text="hi")
    assert asked.headers["content-type"] == "application/problem+json"
    assert asked.status_code == 503
    assert "'conversationstore'" in asked.json()["detail"]
    await bank.platform.stop("assistant.sidecar")
    for name, text in taken.items():
        (resources / name).write_text(text)
    await bank.platform.start("assistant.sidecar")
    await bank.platform.ready("assistant", "assistant.sidecar")
    assert (await bank.ask(bank.direct, agent="weather", text="hi")).json()["answer"] == "heard: hi"
    said = [line for line in bank.platform.log("assistant").read_text().splitlines() if "component_unknown" in line]
    assert len(said) == 1


async def _readiness(bank: Bank) -> httpx2.Response:
    """What /readyz says as soon as anything answers there."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await bank.client.get(f"{bank.direct}/readyz")
            except httpx2.TransportError:
                await asyncio.sleep(0.05)  # another process starts; it tells nobody but who asks


async def test_a_store_that_is_away_is_told_by_readyz_and_found_again(bank: Bank) -> None:
    bank.platform.signal("valkey", signal.SIGSTOP)
    try:
        ready = await bank.client.get(f"{bank.direct}/readyz")
        assert ready.status_code == 503
        assert "store conversationstore" in ready.json()["detail"]
        assert (await bank.client.get(f"{bank.direct}/healthz")).status_code == 200
        asked = await bank.ask(bank.direct, agent="weather", text="hi", key="away")
        assert (asked.status_code, asked.headers["content-type"]) == (503, "application/problem+json")
    finally:
        bank.platform.signal("valkey", signal.SIGCONT)
    async with asyncio.timeout(20):
        while (asked := await bank.ask(bank.direct, agent="weather", text="hi", key="away")).status_code != 200:
            await asyncio.sleep(0.1)
    assert asked.json()["answer"] == "heard: hi"
