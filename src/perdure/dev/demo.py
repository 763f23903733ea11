"""The promise, shown: a turn and a sensor run go on while their processes are killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from perdure.clock import Clock, Ids
from perdure.dev.child import Happening
from perdure.dev.platform import Event, Platform
from perdure.errors import Failed

SERVICES = ("assistant", "orchestrator", "data-collector", "data-processor", "data-analyzer", "alert-manager")

PACE_S = 1.5
"""How long each outcome is held back before it is recorded, so that a person can follow and a kill hits something."""

TEXT = "Book room Oslo for 2026-12-01. Note that the guest likes tea."

VICTIMS = (
    (1.6, ("assistant",)),
    (0.8, ("orchestrator", "orchestrator.sidecar")),
    (0.8, ("data-analyzer",)),
    (0.8, ("assistant.sidecar",)),
)
"""Who is killed, and how many paces after the one before. The first kill hits the assistant when its room is booked
but not yet recorded: it is asked for by key afterwards, and not booked again."""


def _replied(data: dict[str, Any]) -> str:
    names = ", ".join(call["name"] for call in data["calls"])
    return f"model asks for {names}" if names else "model answers"


TOLD: dict[str, Callable[[dict[str, Any]], str]] = {
    "model_replied": _replied,
    "reserved": lambda data: f"{data['name']} ({data['effect']}) is reserved, attempt {data['attempt']}",
    "doubted": lambda data: f"a call is in doubt: {data['why']}",
    "settled": lambda data: f"outcome: {data['content']}",
    "closed": lambda data: f"closed: {data['status']}",
}
"""How an event of the turn is told; the others are not."""

Say = Callable[[str, str, str], None]
"""Shows one line: who (turn, run, kill, back, …), what, and a colour."""


@dataclass(slots=True)
class Demo:
    """One showing on an open platform."""

    platform: Platform
    http: httpx2.AsyncClient
    say: Say
    clock: Clock
    key: str
    evidence: Path
    seen: set[str] = field(default_factory=set)

    async def show(self) -> bool:
        """Run it; True when the promise was kept."""
        turn = await self._begin("assistant", "turns", {"text": TEXT, "key": self.key, "wait_s": 0})
        self.say("turn", f"accepted {turn['id']}: “{TEXT}”", "cyan")
        run = await self._begin(
            "orchestrator", "runs", {"pipeline": "sensors", "input": {"anomaly_chance": 1.0}, "key": self.key}
        )
        self.say("run", f"accepted {run['id']}: sensors, four steps at four services", "magenta")
        async with asyncio.TaskGroup() as tasks:
            watched = tasks.create_task(self._watch_turn(str(turn["id"])))
            followed = tasks.create_task(self._watch_run(str(run["id"])))
            tasks.create_task(self._kill())
        return self._judge(watched.result(), followed.result())

    async def _begin(self, app: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.platform.app(app).dapr_url}/v1.0/invoke/{app}/method/{path}"
        reply = await self.http.post(url, json=body)
        if reply.status_code not in (200, 202):
            raise Failed("demo_refused", f"{app} answered {reply.status_code}: {reply.text}")
        return dict(reply.json())

    async def _watch_turn(self, turn: str) -> dict[str, Any]:
        """Follow the turn's events; after each cut go on behind the last one seen."""
        last = ""
        while True:
            try:
                async for number, name, data in self._events(turn, last):
                    last = number
                    self._tell_event(name, data)
                shown = await self.http.get(f"{self.platform.app('assistant').url}/turns/{turn}")
                return dict(shown.json())
            except httpx2.HTTPError:
                await self.clock.sleep(0.05)

    async def _events(self, turn: str, last: str) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        url = f"{self.platform.app('assistant').url}/turns/{turn}/events"
        headers = {"last-event-id": last} if last else {}
        fields: dict[str, str] = {}
        async with self.http.stream("GET", url, headers=headers) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                name, _, value = line.partition(": ")
                if line and name:
                    fields[name] = value
                elif "data" in fields and "id" in fields:
                    yield fields["id"], fields["event"], json.loads(fields["data"])
                    fields = {}

    def _tell_event(self, name: str, data: dict[str, Any]) -> None:
        told = {
            "model_replied": lambda: (
                f"model asks for {', '.join(call['name'] for call in data['calls'])}"
                if data["calls"]
                else "model answers"
            ),
            "reserved": lambda: f"{data['name']} ({data['effect']}) is reserved, attempt {data['attempt']}",
            "doubted": lambda: f"a call is in doubt: {data['why']}",
            "settled": lambda: f"outcome: {data['content']}",
            "closed": lambda: f"closed: {data['status']}",
        }.get(name)
        if told is not None:
            self.say("turn", told(), "cyan")

    async def _watch_run(self, run: str) -> dict[str, Any]:
        url = f"{self.platform.app('orchestrator').url}/runs/{run}"
        while True:
            await self.clock.sleep(0.1)
            try:
                reply = await self.http.get(url)
                reply.raise_for_status()
            except httpx2.HTTPError:
                continue
            shown = dict(reply.json())
            for step in shown["steps"]:
                self._tell_step(step)
            if shown["status"] in ("done", "failed", "cancelled"):
                self.say("run", f"closed: {shown['status']}", "magenta")
                return shown

    def _tell_step(self, step: dict[str, Any]) -> None:
        word = f"{step['step']} at {step['app']}: {step['status']}"
        if step["status"] != "waiting" and word not in self.seen:
            self.seen.add(word)
            self.say("run", word, "magenta")

    async def _kill(self) -> None:
        """Kill, one after the other, what the two works stand on."""
        for paces, victims in VICTIMS:
            await self.clock.sleep(PACE_S * paces)
            for name in victims:
                pid = self.platform.pids[name]
                self.say("kill", f"kill -9 {name} (process {pid})", "bold red")
            await asyncio.gather(*(self.platform.kill(name) for name in victims))

    def _judge(self, turn: dict[str, Any], run: dict[str, Any]) -> bool:
        """Look at what is in the world, not at what was said."""
        kept = turn.get("status") == "done" and run.get("status") == "done"
        self.say("look", f"answer: {turn.get('answer')}", "green")
        bookings = self._bookings(str(turn.get("id")))
        self.say("look", f"bookings of this turn in {self.evidence.name}: {len(bookings)} (promised: 1)", "green")
        steps = [step for step in run.get("steps", []) if step["status"] == "done"]
        self.say("look", f"finished steps of the sensor run: {len(steps)} of 4", "green")
        return kept and len(bookings) == 1 and len(steps) == 4

    def _bookings(self, turn: str) -> Sequence[str]:
        subject = turn.rsplit("-", 1)[0]
        lines = self.evidence.read_text().splitlines() if self.evidence.exists() else []
        return [line for line in lines if subject in line]


async def demonstrate(home: Path, run_file: Path, say: Say, clock: Clock, ids: Ids) -> bool:
    """Open a platform of its own beside any other, show the promise, leave nothing running. True when it was kept.

    Raises: NotFound (`runtime_missing`), Failed (`not_ready`, `demo_refused`).
    """
    say("start", f"Valkey, placement, scheduler and {len(SERVICES)} services, each beside its own sidecar", "dim")
    env = {"PERDURE_RUN__PACE_S": str(PACE_S), "OPENAI_API_KEY": "", "OPENAI_BASE_URL": ""}
    platform = Platform(home, run_file=run_file, ports="auto", services=SERVICES, env=env)
    async with platform, httpx2.AsyncClient(timeout=30) as http:
        say("start", "all ready", "dim")
        evidence = run_file.parent / ".perdure" / "assistant" / "bookings.jsonl"
        demo = Demo(platform, http, say, clock, f"demo-{ids.new()}", evidence)
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(_tell_restarts(platform.events, say, clock))
            kept = await demo.show()
            telling.cancel()
    say("end", "the promise was kept; nothing is left running" if kept else "THE PROMISE WAS BROKEN", "bold")
    return kept


async def _tell_restarts(events: list[Event], say: Say, clock: Clock) -> None:
    told = len(events)
    while True:
        for event in events[told:]:
            if event.what is Happening.STARTED:
                say("back", f"{event.name} is started again {event.detail}", "yellow")
        told = len(events)
        await clock.sleep(0.02)
