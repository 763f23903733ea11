"""A driver without store, clock or tasks: plan, append to a list, do one action at a time. For tests of turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure.agent.agent import DurableAgent
from perdure.clock import SystemClock
from perdure.llm.model import Model, ModelRequest
from perdure.llm.scripted import ScriptedModel
from perdure.run.control import Control, Position
from perdure.run.event import Claimed, Event
from perdure.run.kind import Doing
from perdure.run.plan import Mode, Plan, Start, View, fold_view, plan
from perdure.sidecar.ports import ChatCall, ChatReply
from perdure.turn.accept import Ask, accept
from perdure.turn.kind import TurnKind
from perdure.turn.state import SessionState
from perdure.types import JsonObject

AT = "2026-01-01T00:00:00.000000Z"
LATER = "2026-01-02T00:00:00.000000Z"


def call(name: str, arguments: str = "{}", id: str = "") -> ChatCall:
    return ChatCall(id, name, arguments)


def asks(*calls: ChatCall, text: str = "") -> ChatReply:
    return ChatReply(text, calls, finish="tool_calls", input_tokens=10, output_tokens=5)


class Recorded:
    """A model that keeps what it was asked."""

    name = "recorded"

    def __init__(self, model: Model) -> None:
        self.model = model
        self.requests: list[ModelRequest] = []

    async def reply(self, request: ModelRequest) -> ChatReply:
        self.requests.append(request)
        return await self.model.reply(request)


@dataclass
class Loop:
    """One session of one agent. `commits` is its log; `step` does the oldest started action."""

    agent: DurableAgent
    model: Model
    commits: list[tuple[Position, tuple[Event, ...]]] = field(default_factory=list)
    epoch: int = 0
    running: list[Start] = field(default_factory=list)
    started: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    last: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        self.kind = TurnKind(self.agent, self.model, clock=SystemClock())
        self.view: View[SessionState] = View(0, self.kind.initial(), Control())

    @classmethod
    def of(cls, agent: DurableAgent, *replies: ChatReply | str) -> Loop:
        return cls(agent, Recorded(ScriptedModel(replies)))

    @property
    def events(self) -> list[Event]:
        return [event for _, events in self.commits for event in events]

    @property
    def positioned(self) -> list[tuple[Position, Event]]:
        return [
            (Position(at.n, i, at.at, at.epoch, at.driver), e)
            for at, events in self.commits
            for i, e in enumerate(events)
        ]

    def say(self, text: str, key: str = "") -> int:
        """Accept a message; the number of its turn."""
        said = accept(Ask(self.kind.name, text, "s-1", key), self.agent.on_message, self.view)
        if isinstance(said, int):
            return said
        if self.view.control.open:
            self.append(said)
        else:
            self.claim(said)
        begun = [at.n for at, events in self.commits for e in events if e is said[-1]]
        return begun[-1] if said[-1].t == "accepted" else said[-1].run

    def claim(self, before: Sequence[Event] = ()) -> None:
        """A new driver takes over: what was running is lost."""
        self.epoch += 1
        self.running.clear()
        self.started.clear()
        self.append([*before, Claimed("slot")])

    def append(self, facts: Sequence[Event]) -> Plan:
        """What a driver does with news: plan, append, remember what to start."""
        at = Position(self.view.n + 1, 0, AT, self.epoch, f"driver-{self.epoch}")
        keys = frozenset(start.action.key for start in self.running)
        made = plan(
            self.kind, self.view, facts, at=at, running=keys, started=self.started,
            expires=lambda seconds: LATER, patience_s=5.0,
        )  # fmt: skip
        if made.events:
            self.view = fold_view(self.kind, self.view, made.events, at)
            self.commits.append((at, made.events))
        self.running = [start for start in self.running if start.action.key in made.wanted] + list(made.start)
        self.last = made
        return made

    async def step(self) -> None:
        """Do the oldest started action and record what happened."""
        start = self.running[0]
        action = start.action
        self.started.add(action.key)
        doing = Doing(f"subject.{action.key}", f"subject-{action.run}", start.attempt, self.epoch)
        if start.mode is Mode.RECONCILE:
            raise NotImplementedError("reconciliation is tested with the runner")
        facts = await self.kind.do(action, doing)
        self.done.append(action.key)
        self.running.remove(start)
        self.append(facts)

    async def drive(self) -> None:
        """Until nothing is left to start."""
        while self.running:
            await self.step()

    def turn(self, run: int) -> JsonObject:
        return self.kind.describe(self.view.state, self.view.control, run)

    @property
    def asked(self) -> list[ModelRequest]:
        assert isinstance(self.model, Recorded)
        return self.model.requests


def kinds(events: Sequence[Any]) -> list[str]:
    return [event.t for event in events]
