"""Runs the step handlers of one agent: a step that has answered is never run again, whoever asks how often."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from perdure.clock import Clock
from perdure.effect import Effect
from perdure.errors import Conflict, Failed, Invalid, NotFound, Transient
from perdure.observability.context import log_context
from perdure.observability.logs import get_logger
from perdure.pipeline.context import StepContext, applied, checked_memory_key, memory_value
from perdure.pipeline.graph import check_name
from perdure.pipeline.record import Receipt, Record, RecordBook
from perdure.sidecar.ports import StateStore
from perdure.state.document import Stored
from perdure.types import Json, JsonObject

log = get_logger(__name__)

Handler: TypeAlias = Callable[[JsonObject, StepContext], Awaitable[Any]]

MAX_OUTPUT_BYTES = 1024 * 1024
"""An output travels to every dependent through sidecars that refuse 4 MiB; larger data belongs into a store."""

AWAY_S = 0.2
"""Between two tries to write what must not be forgotten."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """One call of a step. `key` names the step of the run, the same for every repetition."""

    key: str
    run: str
    attempt: int
    fence: int
    message: JsonObject

    @property
    def digest(self) -> str:
        """Of the message: the same key must mean the same work."""
        text = orjson.dumps(self.message, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(text, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class StepHandler:
    """A handler and what it declares. `timeout_s` limits one call of it."""

    name: str
    function: Handler
    effect: Effect = Effect.ONCE
    timeout_s: float = 300.0


class StepServer:
    """The handlers of `agent` over its record in `store`.

    `slot` is this replica's name across restarts, `life` a name that no other process ever has.
    """

    def __init__(
        self,
        agent: str,
        handlers: Mapping[str, StepHandler],
        store: StateStore,
        *,
        clock: Clock,
        slot: str,
        life: str,
        prefix: str = "",
    ) -> None:
        self.agent = check_name("agent", agent)
        self.handlers = handlers
        self._book = RecordBook(store, agent, prefix)
        self._clock = clock
        self._slot = slot
        self._life = life
        self._lock = asyncio.Lock()
        self._going: dict[str, asyncio.Task[str]] = {}
        self._unsure: set[str] = set()
        self._seen: dict[str, float] = {}

    async def state(self) -> JsonObject:
        """The agent's state; `{}` when there is none."""
        return (await self._book.load()).value.state

    async def memory(self, key: str) -> Json:
        """A memory entry of the agent. Raises: NotFound (`memory_unknown`), Invalid (`memory_key`)."""
        record = (await self._book.load()).value
        value: Json = memory_value(key, await self._book.memory(record, checked_memory_key(key)))
        return value

    async def answered(self, key: str) -> str | None:
        """What the step with `key` answered (JSON text), if its receipt is here."""
        receipt = await self._book.receipt((await self._book.load()).value, key)
        return receipt.output if receipt is not None and receipt.status == "done" else None

    async def handle(self, step: str, call: StepCall) -> str:
        """The answer as JSON text, from its receipt if it was given before. For callers that may repeat the call.

        Raises: Failed (`step_failed`: the handler raised; `step_in_doubt`: a `once` handler was cut or raised
        Transient, nobody knows whether it took effect; `step_timed_out`; `step_output_wrong`), Conflict (`key_reused`,
        `fence_stale`), NotFound (`step_unknown`), Transient (`step_running` elsewhere, or a store is away).
        """
        # Who asks may go away while the handler goes on: a repeated call joins it instead of running it again.
        return await asyncio.shield(self._joined(self._handler(step), call, ledger=False))

    async def handle_here(self, step: str, call: StepCall) -> str:
        """The same for a run that is driven in this process, whose log already knows what was begun.

        Nothing is written unless the handler changed state or memory. Cancelling the caller stops the handler.
        """
        going = self._joined(self._handler(step), call, ledger=True)
        try:
            return await asyncio.shield(going)
        except asyncio.CancelledError:
            going.cancel()
            await asyncio.wait((going,))
            raise

    async def drain(self, seconds: float) -> None:
        """Give running handlers that long, then cut them."""
        tasks = tuple(self._going.values())
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _handler(self, step: str) -> StepHandler:
        handler = self.handlers.get(step)
        if handler is None:
            known = ", ".join(self.handlers) or "none"
            raise NotFound("step_unknown", f"step {step!r} is unknown at {self.agent}; known: {known}")
        return handler

    def _joined(self, handler: StepHandler, call: StepCall, *, ledger: bool) -> asyncio.Task[str]:
        going = self._going.get(call.key)
        if going is None:
            going = asyncio.create_task(self._handled(handler, call, ledger), name=f"step {handler.name} {call.key}")
            self._going[call.key] = going
            going.add_done_callback(lambda task: self._ended(call.key, task))
        return going

    def _ended(self, key: str, task: asyncio.Task[str]) -> None:
        self._going.pop(key, None)
        if not task.cancelled():
            task.exception()  # seen, also when nobody waits for it any more

    async def _handled(self, handler: StepHandler, call: StepCall, ledger: bool) -> str:
        with log_context(agent=self.agent, run=call.run):
            stored = await self._book.load()
            answer = await self._known(handler, call, stored.value)
            if answer is not None:
                log.info("step_answered_from_receipt", step=handler.name, attempt=call.attempt)
                return answer
            if handler.effect is Effect.ONCE:
                answer = await self._once(handler, call, stored, ledger)
            else:
                answer = await self._repeatable(handler, call, stored, ledger)
            log.info("step_done", step=handler.name, attempt=call.attempt)
            return answer

    async def _known(self, handler: StepHandler, call: StepCall, record: Record) -> str | None:
        """The answer given before, or None when the handler may run."""
        receipt = await self._book.receipt(record, call.key)
        if receipt is None:
            self._seen.pop(call.key, None)
            return None
        if receipt.digest != call.digest:
            raise Conflict("key_reused", f"key {call.key!r} was used for another message; use a new key")
        if receipt.status == "done":
            self._seen.pop(call.key, None)
            self._unsure.discard(call.key)
            return receipt.output
        if call.fence < receipt.fence:
            raise Conflict("fence_stale", f"step {handler.name!r} was begun by a newer owner of the run; stop")
        if receipt.life != self._life or call.key not in self._unsure:
            raise self._doubt(handler, call, receipt)
        return None  # this process wrote that it would begin, and did not begin: nobody said that it was written

    def _doubt(self, handler: StepHandler, call: StepCall, receipt: Receipt) -> Transient | Failed:
        """A `once` handler was begun and is not running here: cut, or still running in another replica."""
        first = self._seen.setdefault(call.key, self._clock.monotonic())
        if receipt.slot != self._slot and self._clock.monotonic() - first < handler.timeout_s:
            message = f"step {handler.name!r} was begun by {receipt.slot}, which may still work on it; ask again"
            return Transient("step_running", message, retry_after_s=1)
        self._seen.pop(call.key, None)
        return Failed(
            "step_in_doubt",
            f"step {handler.name!r} was begun and cut before it answered; whether it took effect is unknown",
            step=handler.name,
        )

    async def _repeatable(self, handler: StepHandler, call: StepCall, stored: Stored[Record], ledger: bool) -> str:
        """Run on the newest state; when another step changed it meanwhile, run again on what is newest now."""
        answer = await self._attempt(handler, call, stored, ledger)
        if answer is not None:
            return answer
        async with self._lock:  # those who lost a race take turns, so they cannot make each other lose again
            while True:
                stored = await self._book.load()
                answer = await self._known(handler, call, stored.value)
                if answer is None:
                    answer = await self._attempt(handler, call, stored, ledger)
                if answer is not None:
                    return answer

    async def _attempt(self, handler: StepHandler, call: StepCall, stored: Stored[Record], ledger: bool) -> str | None:
        """The answer, kept; or None when somebody else changed the record meanwhile."""
        context = self._context(handler, call, stored.value)
        output = await self._run(handler, call, context)
        if ledger and not context.changed:
            return output
        try:
            await self._keep(call, context, output, stored)
        except Conflict:
            return None
        return output

    async def _keep(self, call: StepCall, context: StepContext, output: str, over: Stored[Record]) -> None:
        done = Receipt("done", call.digest, output, call.fence)
        state = applied(context.changes, over.value.state)
        await self._book.save(over, call.key, done, state=state, fresh=context.fresh)

    async def _once(self, handler: StepHandler, call: StepCall, stored: Stored[Record], ledger: bool) -> str:
        if not ledger:
            begun = Receipt("begun", call.digest, fence=call.fence, slot=self._slot, life=self._life)
            self._unsure.add(call.key)
            try:
                stored = await self._mark(handler, call, begun)
            except (Failed, Conflict):  # somebody else began it
                self._unsure.discard(call.key)
                raise
            self._unsure.discard(call.key)
        context = self._context(handler, call, stored.value)
        try:
            output = await self._run(handler, call, context)
        except Transient as error:  # what the handler used gave no answer: nobody knows how far it came
            message = f"step {handler.name!r} ended without an outcome: {error.message}"
            raise Failed("step_in_doubt", message, step=handler.name) from error
        except (Failed, Invalid) as failed:
            # It said that it failed: that is told, and the caller decides; a time limit leaves a doubt.
            if failed.code != "step_timed_out" and not ledger:
                await self._surely(lambda: self._mark(handler, call, None))
            raise
        if not ledger or context.changed:
            await self._surely(lambda: self._keep_newest(call, context, output))
        return output

    async def _keep_newest(self, call: StepCall, context: StepContext, output: str) -> None:
        while True:
            newest = await self._book.load()
            found = await self._book.receipt(newest.value, call.key)
            if found is not None and found.status == "done":
                return
            try:
                await self._keep(call, context, output, newest)
            except Conflict:
                continue
            return

    async def _surely(self, write: Callable[[], Awaitable[Any]]) -> None:
        """Wait out a store that is away: what a `once` handler did must not be forgotten while this process lives."""
        while True:
            try:
                await write()
            except Transient as error:
                log.warning("store_away", code=error.code, agent=self.agent, wait_s=AWAY_S)
                await self._clock.sleep(AWAY_S)
                continue
            return

    async def _mark(self, handler: StepHandler, call: StepCall, receipt: Receipt | None) -> Stored[Record]:
        """Write (or remove) that the handler is to begin; the record as it is then."""
        while True:
            stored = await self._book.load()
            if receipt is not None and await self._known(handler, call, stored.value) is not None:
                raise Transient("step_running", f"step {handler.name!r} was answered meanwhile; ask again")
            try:
                await self._book.save(stored, call.key, receipt)
            except Conflict:
                continue
            return await self._book.load()

    def _context(self, handler: StepHandler, call: StepCall, record: Record) -> StepContext:
        return StepContext(
            handler.name, key=call.key, run=call.run, attempt=call.attempt, fence=call.fence,
            clock=self._clock, record=record, book=self._book,
        )  # fmt: skip

    async def _run(self, handler: StepHandler, call: StepCall, context: StepContext) -> str:
        """Raises: Failed, Invalid, Transient (of the handler's own making: ask again, without counting it)."""
        try:
            async with asyncio.timeout(handler.timeout_s) as limit:
                value = await handler.function(call.message, context)
        except (Transient, Invalid) as error:
            raise error from None
        except Exception as error:  # a user's handler may raise anything; whoever runs the pipeline is told
            if isinstance(error, TimeoutError) and limit.expired():
                message = f"step {handler.name!r} did not answer within {handler.timeout_s:g} s"
                raise Failed("step_timed_out", message, step=handler.name) from error
            log.failure("step_failed", error, step=handler.name, attempt=call.attempt)
            message = f"{type(error).__name__}: {error}"
            raise Failed("step_failed", message[:2000], step=handler.name) from error
        return _output(handler.name, value)


def _output(step: str, value: Any) -> str:
    """Raises: Failed (`step_output_wrong`)."""
    if value is not None and not isinstance(value, dict):
        kind = type(value).__name__
        raise Failed("step_output_wrong", f"step {step!r} returned a {kind}; return a dict or None", step=step)
    try:
        text = orjson.dumps(value)
    except TypeError as error:
        raise Failed("step_output_wrong", f"step {step!r} returned what is not JSON: {error}", step=step) from error
    if len(text) > MAX_OUTPUT_BYTES:
        size = f"{len(text)} bytes, allowed are {MAX_OUTPUT_BYTES}"
        raise Failed("step_output_wrong", f"step {step!r} returned {size}; keep the data and return a reference")
    return text.decode()
