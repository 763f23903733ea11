"""The two effects of a turn: ask the model, call a tool. Spans and metrics are made here, so a crash repeats none."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.clock import Clock, parse_rfc3339
from perdure.conversation.window import shown
from perdure.effect import Effect
from perdure.errors import PerdureError, Transient
from perdure.llm.model import Model, ModelRequest
from perdure.observability.context import log_context
from perdure.observability.logs import get_logger
from perdure.observability.metrics import Metrics
from perdure.observability.names import Attribute, SpanName
from perdure.observability.tracing import Span, Tracer
from perdure.run.control import RunInfo
from perdure.run.event import Doubted, Event, Settled, Unreconciled
from perdure.run.kind import Action, Doing
from perdure.sidecar.ports import ChatCall, ChatReply
from perdure.tools.context import ToolContext
from perdure.tools.failure import EndTurn, ToolTimedOut
from perdure.tools.reconciled import ReconciledAs
from perdure.turn.decide import ModelAction, ToolAction
from perdure.turn.events import ModelReplied, TurnFailed
from perdure.turn.rules import TurnRules

log = get_logger(__name__)

TIME_LIMIT = "time limit"
CUT = "cut while its thread runs"


@dataclass(frozen=True, slots=True)
class Effects:
    """Does the actions of one agent's turns."""

    rules: TurnRules
    model: Model
    clock: Clock
    tracer: Tracer
    metrics: Metrics | None

    async def do(self, action: Action, doing: Doing) -> Sequence[Event]:
        """What happened. Raises: Transient when the model stays away and the agent waits for it."""
        session = action.session if isinstance(action, ModelAction | ToolAction) else ""
        with log_context(agent=self.rules.name, session=session, run=doing.run_id, caller=doing.by):
            if isinstance(action, ModelAction):
                return await self._ask(action, doing)
            if isinstance(action, ToolAction):
                return await self._call(action, doing)
        raise TypeError(f"a turn has no action {type(action).__name__}")

    def ended(self, run_id: str, info: RunInfo) -> None:
        """The turn's own span and figures, from the moment it was accepted, in whichever process that was."""
        began, ended = parse_rfc3339(info.at), parse_rfc3339(info.ended)
        if self.metrics is not None:
            self.metrics.turns.add(1, agent=self.rules.name, status=info.status)
            self.metrics.turn_seconds.observe((ended - began).total_seconds(), agent=self.rules.name)
        attributes = {
            str(Attribute.OPERATION): SpanName.TURN.value,
            str(Attribute.AGENT_NAME): self.rules.name,
            str(Attribute.RUN): run_id,
        }
        name = f"{SpanName.TURN} {self.rules.name}"
        failed = info.status == "failed"
        self.tracer.record(name, attributes, parent=info.trace, began=began, ended=ended, failed=failed)

    async def reconcile(self, action: Action, doing: Doing) -> Settled | bool | None:
        """What became of a tool call that was cut: its outcome, False if it did not happen, None if unknown."""
        if not isinstance(action, ToolAction):
            return None
        with log_context(agent=self.rules.name, session=action.session, run=doing.run_id, caller=doing.by):
            try:
                said = await self.rules.toolbox.reconcile(action.parsed, doing.key)
            except asyncio.CancelledError:
                if not self.rules.toolbox.working(doing.key):
                    raise
                return None  # as below: nobody else may ask while that thread can still write
        if said.state is ReconciledAs.DONE and said.result is not None:
            return Settled(action.key, said.result.text, not said.result.is_error)
        return False if said.state is ReconciledAs.NOT_DONE else None

    # --- the model ------------------------------------------------------------------------------

    async def _ask(self, action: ModelAction, doing: Doing) -> Sequence[Event]:
        attributes = self._attributes("chat", action, doing) | {str(Attribute.REQUEST_MODEL): self.model.name}
        began = self.clock.monotonic()
        try:
            with self.tracer.span(f"{SpanName.MODEL_CALL} {self.model.name}", attributes, parent=doing.trace) as span:
                reply = await self.model.reply(self._request(action))
                _describe_reply(span, reply)
        except Transient as error:
            self._count_model("failed", began)
            if self.rules.wait_for_model:
                raise
            return [self._model_failed(action, error)]
        except PerdureError as error:
            self._count_model("failed", began)
            return [self._model_failed(action, error)]
        if not reply.text and not reply.calls and reply.finish not in ("", "stop"):
            self._count_model(reply.finish, began, reply)
            message = f"the model stopped ({reply.finish}) without saying anything; change the request"
            return [TurnFailed(action.run, "model_said_nothing", message)]
        self._count_model("ok", began, reply)
        return [_replied(action, reply)]

    def _request(self, action: ModelAction) -> ModelRequest:
        shape = self.rules.shape
        return ModelRequest(
            messages=tuple(shown(action.messages, self.rules.context_messages, self.rules.instructions)),
            tools=self.rules.toolbox.offers,
            temperature=self.rules.temperature,
            response_schema=shape.schema if shape is not None else None,
            timeout_s=self.rules.model_timeout_s,
        )

    def _model_failed(self, action: ModelAction, error: PerdureError) -> TurnFailed:
        log.failure("model_failed", error, model=self.model.name)
        return TurnFailed(action.run, error.code, clean(error.message))

    def _count_model(self, outcome: str, began: float, reply: ChatReply | None = None) -> None:
        if self.metrics is None:
            return
        name = reply.model if reply is not None else self.model.name
        self.metrics.model_calls.add(1, model=name, outcome=outcome)
        self.metrics.model_seconds.observe(self.clock.monotonic() - began, model=name)
        if reply is not None:
            self.metrics.model_tokens.add(reply.input_tokens, model=name, direction="input")
            self.metrics.model_tokens.add(reply.output_tokens, model=name, direction="output")

    # --- tools ----------------------------------------------------------------------------------

    async def _call(self, action: ToolAction, doing: Doing) -> Sequence[Event]:
        attributes = self._attributes("execute_tool", action, doing) | {
            str(Attribute.TOOL_NAME): action.name,
            str(Attribute.TOOL_CALL_ID): action.call_id,
        }
        began = self.clock.monotonic()
        with self.tracer.span(f"{SpanName.TOOL_CALL} {action.name}", attributes, parent=doing.trace) as span:
            if span.recording:
                span.set(Attribute.TOOL_ARGUMENTS, action.arguments)
            events, outcome = await self._outcome(action, doing)
            if outcome != "ok":
                span.set(Attribute.ERROR_TYPE, outcome)
        if self.metrics is not None:
            self.metrics.tool_calls.add(1, tool=action.name, outcome=outcome)
            self.metrics.tool_seconds.observe(self.clock.monotonic() - began, tool=action.name)
        return events

    async def _outcome(self, action: ToolAction, doing: Doing) -> tuple[Sequence[Event], str]:
        """Events about the call, and the outcome in a word."""
        try:
            result = await self.rules.toolbox.call(action.parsed, self._context(action, doing))
        except EndTurn as end:
            message = clean(end.message)
            ended = TurnFailed(action.run, end.code, message)
            return [Settled(action.key, message, ok=False), ended], "ended_turn"
        except ToolTimedOut as late:
            if action.effect is Effect.ONCE:
                return [Doubted(action.key, TIME_LIMIT)], "timed_out"
            return [Settled(action.key, late.message, ok=False)], "timed_out"
        except asyncio.CancelledError:
            # The thread goes on, perhaps while another replica drives the run. There, the target would say
            # "never happened" too early, so it must not be asked: the declared policy decides.
            if action.effect is not Effect.ONCE or not self.rules.toolbox.working(doing.key):
                raise
            return [Doubted(action.key, CUT), Unreconciled(action.key)], "cancelled"
        return [Settled(action.key, result.text, not result.is_error)], "failed" if result.is_error else "ok"

    def _context(self, action: ToolAction, doing: Doing) -> ToolContext:
        limit = self.rules.toolbox[action.name].timeout_s
        return ToolContext(
            key=doing.key,
            attempt=doing.attempt,
            fence=doing.fence,
            deadline=None if limit is None else self.clock.monotonic() + limit,
            session=action.session,
            run=doing.run_id,
            caller=doing.by,
        )

    def _attributes(self, operation: str, action: ModelAction | ToolAction, doing: Doing) -> dict[str, str | int]:
        if not self.tracer.on:
            return {}
        return {
            str(Attribute.OPERATION): operation,
            str(Attribute.AGENT_NAME): self.rules.name,
            str(Attribute.CONVERSATION_ID): action.session,
            str(Attribute.RUN): doing.run_id,
            str(Attribute.ATTEMPT): doing.attempt,
        }


def _replied(action: ModelAction, reply: ChatReply) -> ModelReplied:
    return ModelReplied(
        run=action.run,
        text=clean(reply.text),
        calls=tuple(ChatCall(clean(call.id), clean(call.name), clean(call.arguments)) for call in reply.calls),
        finish=reply.finish,
        model=reply.model,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
        heard=action.heard,
    )


def clean(text: str) -> str:
    """`text` as it can be written: half a character, as a model that was cut may send, becomes a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


def _describe_reply(span: Span, reply: ChatReply) -> None:
    if not span.recording:
        return
    span.set(Attribute.RESPONSE_MODEL, reply.model)
    span.set(Attribute.FINISH_REASONS, [reply.finish])
    span.set(Attribute.INPUT_TOKENS, reply.input_tokens)
    span.set(Attribute.OUTPUT_TOKENS, reply.output_tokens)
    span.set(Attribute.OUTPUT_MESSAGES, reply.text)
