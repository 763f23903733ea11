"""The name of every log field, span, span attribute and metric, in one place.

GenAI names follow OpenTelemetry's GenAI conventions, which are still in development and have moved between
packages: that is why they are spelled out here and not imported.
"""

from __future__ import annotations

from enum import StrEnum


class LogField(StrEnum):
    """Fields that log lines carry; the first four come from the context of the work, not from the call."""

    CALLER = "caller"
    SESSION = "session"
    RUN = "run"
    TRACE_ID = "trace_id"
    AGENT = "agent"
    LOGGER = "logger"
    CODE = "code"
    ERROR = "error"
    DETAILS = "details"
    TOOL = "tool"
    MODEL = "model"
    ATTEMPT = "attempt"
    WAIT_S = "wait_s"


CONTENT_FIELDS = frozenset({"text", "answer", "arguments", "result", "messages", "payload", "prompt", "instructions"})
"""Log fields that hold what users, models and tools said; left out unless contents are switched on."""


class SpanName(StrEnum):
    """Beginnings of span names; the name of the thing follows, as in `chat gpt-5`."""

    TURN = "invoke_agent"
    MODEL_CALL = "chat"
    TOOL_CALL = "execute_tool"
    PIPELINE = "invoke_workflow"
    STEP = "execute_step"
    PLAN = "plan"
    STORE_READ = "store read"
    STORE_WRITE = "store write"


class Attribute(StrEnum):
    """Attributes of spans."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    REQUEST_MODEL = "gen_ai.request.model"
    RESPONSE_MODEL = "gen_ai.response.model"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    AGENT_NAME = "gen_ai.agent.name"
    AGENT_ID = "gen_ai.agent.id"
    CONVERSATION_ID = "gen_ai.conversation.id"
    TOOL_NAME = "gen_ai.tool.name"
    TOOL_CALL_ID = "gen_ai.tool.call.id"
    INPUT_MESSAGES = "gen_ai.input.messages"
    OUTPUT_MESSAGES = "gen_ai.output.messages"
    TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
    TOOL_RESULT = "gen_ai.tool.call.result"
    ERROR_TYPE = "error.type"
    RUN = "perdure.run"
    EPOCH = "perdure.epoch"
    ATTEMPT = "perdure.attempt"
    STORE = "perdure.store"
    ITEMS = "perdure.items"


CONTENT_ATTRIBUTES = frozenset(
    {Attribute.INPUT_MESSAGES, Attribute.OUTPUT_MESSAGES, Attribute.TOOL_ARGUMENTS, Attribute.TOOL_RESULT}
)
"""Span attributes that hold contents; dropped unless contents are switched on."""


class MetricName(StrEnum):
    """Metrics as Prometheus shows them (it adds `_total` to counters)."""

    TURNS = "perdure_turns"
    TURN_SECONDS = "perdure_turn_seconds"
    STEPS = "perdure_steps"
    TOOL_CALLS = "perdure_tool_calls"
    TOOL_SECONDS = "perdure_tool_seconds"
    MODEL_CALLS = "perdure_model_calls"
    MODEL_SECONDS = "perdure_model_seconds"
    MODEL_TOKENS = "perdure_model_tokens"
    STORE_WRITES = "perdure_store_writes"
    STORE_WRITE_SECONDS = "perdure_store_write_seconds"
    STORE_WRITE_BYTES = "perdure_store_write_bytes"
    CONFLICTS = "perdure_conflicts"
    CLAIMS = "perdure_claims"
    ADOPTIONS = "perdure_adoptions"
    PARKED_RUNS = "perdure_parked_runs"
    ACTIVE_RUNS = "perdure_active_runs"


class Label(StrEnum):
    """Labels of metrics. Never a session, run or caller: their number has no bound."""

    AGENT = "agent"
    STATUS = "status"
    KIND = "kind"
    TOOL = "tool"
    OUTCOME = "outcome"
    MODEL = "model"
    DIRECTION = "direction"
    STORE = "store"
    REASON = "reason"
