"""What can be done with turns, for HTTP and for `app.local()` alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from perdure.agent.agent import DurableAgent
from perdure.clock import Ids
from perdure.errors import Invalid, NotFound
from perdure.observability.context import log_context
from perdure.run.control import Position
from perdure.run.event import Event
from perdure.run.runner import Accept, Runner
from perdure.turn.accept import Ask, accept, session_of
from perdure.turn.describe import session_json
from perdure.turn.kind import FAMILY
from perdure.types import JsonObject, RunId, SubjectId

TERMINAL = frozenset({"done", "failed", "cancelled"})
"""Statuses that stay."""


def ended(turn: JsonObject) -> bool:
    """Whether a described turn has ended."""
    return turn.get("status") in TERMINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A user's text on its way to an agent; an empty field was not given."""

    text: str
    agent: str = ""
    session: str = ""
    key: str = ""
    by: str = ""
    trace: str = ""


class Turns:
    """The turns of this service's agents."""

    def __init__(self, runner: Runner, agents: Mapping[str, DurableAgent], ids: Ids) -> None:
        self._runner = runner
        self._agents = agents
        self._ids = ids

    @property
    def agents(self) -> Mapping[str, DurableAgent]:
        """By name."""
        return self._agents

    async def ask(self, question: Question) -> Accept:
        """Begin a turn, or join the one that has its key; durable when this returns.

        Raises: NotFound (`agent_unknown`), Invalid (`agent_missing`, `session_malformed`, `key_malformed`),
        Conflict (`key_reused`, `turn_running`), Busy.
        """
        agent = self.agent(question.agent)
        kind = f"{FAMILY}/{agent.name}"
        session = session_of(agent.name, question.session or None, question.key or None, self._ids)
        asked = Ask(kind, question.text, session, question.key, question.by, question.trace)
        with log_context(agent=agent.name, session=session):
            subject = self._runner.subject(kind, session)
            return await self._runner.accept(kind, subject, lambda view: accept(asked, agent.on_message, view))

    async def show(self, turn: RunId) -> JsonObject:
        """The turn as it is now. Raises: NotFound (`run_unknown`), Invalid (`run_id_malformed`)."""
        return await self._runner.describe(turn)

    async def wait(self, turn: RunId, timeout_s: float, stop: asyncio.Event) -> JsonObject:
        """The turn once it ended or waits for somebody, at the latest after `timeout_s` or when `stop` is set."""
        if timeout_s <= 0 or stop.is_set():
            return await self._runner.describe(turn)
        waiting = asyncio.ensure_future(self._runner.wait(turn, timeout_s))
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else await self._runner.describe(turn)
        finally:
            waiting.cancel()
            stopping.cancel()

    async def session(self, agent: str, session: str) -> JsonObject:
        """All turns and messages of a session. Raises: NotFound (`session_unknown`, `agent_unknown`)."""
        declared = self.agent(agent)
        subject = await self._subject(declared, session)
        history = [entry async for entry in self._history(subject)]
        return {"agent": declared.name, **session_json(subject, history, declared.shape)}

    async def erase(self, agent: str, session: str) -> None:
        """Erase a session for ever. Raises: NotFound, Conflict (`run_open`) while a turn of it is open."""
        await self._runner.erase(await self._subject(self.agent(agent), session))

    def agent(self, name: str) -> DurableAgent:
        """The agent `name`; without a name, the only one. Raises: NotFound (`agent_unknown`), Invalid."""
        if not name and len(self._agents) == 1:
            return next(iter(self._agents.values()))
        registered = ", ".join(sorted(self._agents)) or "none"
        if not name:
            raise Invalid("agent_missing", f"this service has several agents; name one of them: {registered}")
        found = self._agents.get(name)
        if found is None:
            raise NotFound("agent_unknown", f"agent {name!r} is unknown; registered: {registered}")
        return found

    async def _subject(self, agent: DurableAgent, session: str) -> SubjectId:
        subject = self._runner.subject(f"{FAMILY}/{agent.name}", session)
        try:
            await self._runner.view(subject)
        except NotFound as error:
            if error.code != "run_unknown":
                raise
            raise NotFound(
                "session_unknown", f"agent {agent.name!r} has no session {session!r}; check the name"
            ) from error
        return subject

    async def _history(self, subject: SubjectId) -> AsyncIterator[tuple[Position, Event]]:
        opened = self._runner.open_subject(subject, FAMILY)
        async for commit in opened.log.history(1):
            for i, event in enumerate(opened.kind.codec.decode(commit.events)):
                yield Position(commit.n, i, commit.at, commit.epoch, commit.driver), event
