"""Runs of a local runtime in the hands of the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from perdure.errors import Conflict, Failed, NotFound
from perdure.log.subject import parse_run_id
from perdure.run.control import Approval
from perdure.run.event import Event
from perdure.serving.service import Service
from perdure.serving.turns import ended
from perdure.types import Json, JsonObject, RunId

CALLER = "local"
"""Recorded as `by`."""

LONG_S = 3600.0
"""How long one look at a run lasts before the next; any number would do."""


class LocalRun:
    """A run. What is not awaited tells of the last look at it; `refresh` and all that waits looks anew."""

    def __init__(self, service: Service, run: RunId, joined: bool) -> None:
        self._service = service
        self._shown: JsonObject = {"id": run, "status": "accepted"}
        self._asked: tuple[Approval, ...] = ()
        self.id = run
        self.joined = joined

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status}>"

    @property
    def status(self) -> str:
        """accepted, running, waiting, paused, done, failed or cancelled."""
        return str(self._shown["status"])

    def show(self) -> JsonObject:
        """The run as HTTP shows it."""
        return self._shown

    async def refresh(self) -> JsonObject:
        """Look at the run."""
        subject, n = parse_run_id(self.id)
        self._shown = await self._service.runner.describe(self.id)
        control = (await self._service.runner.view(subject)).control
        self._asked = tuple(a for a in control.approvals.values() if a.run == n and a.status == "asked")
        return self._shown

    async def pause(self) -> None:
        """No new action starts until `resume`."""
        await self._service.runner.pause(self.id, CALLER)

    async def resume(self) -> None:
        """End a pause."""
        await self._service.runner.resume(self.id, CALLER)

    async def cancel(self, reason: str = "") -> None:
        """End the run as cancelled once its actions have stopped."""
        await self._service.runner.cancel(self.id, reason, CALLER)

    async def signal(self, name: str, payload: JsonObject | None = None, id: str = "") -> None:
        """Hand the run a named message; with an `id`, once."""
        await self._service.runner.signal(self.id, name, payload or {}, id, CALLER)

    def events(self, after: tuple[int, int] = (0, 0)) -> AsyncIterator[tuple[int, int, Event]]:
        """What happened and happens in the run, to its end, as (n, i, event)."""
        return self._service.runner.events(self.id, after)

    async def _succeeded(self) -> bool:
        """True once it is done; False when it waits for a person or is paused. Raises: Failed, Conflict."""
        while True:
            await self.refresh()
            if ended(self._shown):
                break
            if self._asked or self.status == "paused":
                return False
            if self._service.draining.is_set():
                message = f"the runtime was closed while {self.id} was going on; open it again"
                raise Conflict("runtime_closed", message)
            await self._service.turns.wait(self.id, LONG_S, self._service.draining)
        self._raise_failure()
        return True

    def _raise_failure(self) -> None:
        if self.status == "done":
            return
        error: Any = self._shown.get("error")
        if isinstance(error, dict):
            raise Failed(str(error.get("code")), str(error.get("message")), run=self.id)
        raise Failed(f"run_{self.status}", f"run {self.id} was {self.status}", run=self.id)


class LocalTurn(LocalRun):
    """A turn."""

    async def answer(self) -> Json:
        """The answer: text, or the value of a structured answer. None when the turn waits for a person or is paused.

        Raises: Failed (the turn's own code, or `run_cancelled`), Conflict (`runtime_closed`).
        """
        if not await self._succeeded():
            return None
        return self._shown.get("output", self._shown.get("answer"))

    def approvals(self) -> tuple[Approval, ...]:
        """What waits for a person: call, tool's name, arguments, digest."""
        return self._asked

    async def approve(self, call: str | Approval, by: str = CALLER) -> None:
        """Allow the call as it was shown by `approvals`. Raises: NotFound, Conflict."""
        asked = self._approval(call)
        await self._service.runner.approve(self.id, asked.call, asked.digest, by)

    async def deny(self, call: str | Approval, reason: str = "", by: str = CALLER) -> None:
        """Refuse the call; the model is told. Raises: NotFound, Conflict."""
        await self._service.runner.deny(self.id, self._approval(call).call, by, reason)

    async def steer(self, text: str) -> None:
        """Say something that reaches the model before its next call."""
        await self._service.runner.steer(self.id, text, CALLER)

    def _approval(self, call: str | Approval) -> Approval:
        if isinstance(call, Approval):
            return call
        found = next((asked for asked in self._asked if asked.call == call), None)
        if found is None:
            known = ", ".join(asked.call for asked in self._asked) or "none"
            raise NotFound("approval_unknown", f"no approval is asked for call {call!r}; asked for: {known}")
        return found


class LocalPipelineRun(LocalRun):
    """A run of a pipeline."""

    async def outputs(self) -> JsonObject | None:
        """The outputs by step once the run has ended; None while it is paused. Raises: Failed, Conflict."""
        if not await self._succeeded():
            return None
        outputs = self._shown.get("outputs")
        return outputs if isinstance(outputs, dict) else {}
