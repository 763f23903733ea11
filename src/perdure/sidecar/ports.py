"""All doors. Each has a Dapr and an in-memory implementation that pass one contract suite.

Every method may raise `SidecarUnavailable` (in bounded time) where an implementation has a
sidecar behind it. Construction and `__init__` never touch the network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from perdure.types import Json, JsonObject


@dataclass(frozen=True, slots=True)
class Item:
    """A stored value with the store's own version mark."""

    value: bytes
    etag: str


class StateStore(Protocol):
    """One state-store component. Keys are opaque text without `||`; every read and write is strong.

    A write that returns is durable. A write that raises `Conflict` changed nothing of ours. A write
    that raises `Transient` has an unknown outcome: only the *identical* call may be repeated.
    Implementations read back after a failed save, so `Conflict` is never said of one's own write.
    """

    name: str

    async def get(self, key: str) -> Item | None:
        """The value under `key`, or None."""
        ...

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        """The values that exist, by key; paged inside so that no message exceeds the sidecar's limit."""
        ...

    async def create(self, key: str, value: bytes) -> None:
        """Write if `key` is absent, or holds exactly `value` already.

        Raises: Conflict (code `key_taken`) when it holds something else.
        """
        ...

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        """Write; with `etag`, only if the stored item still has it (absent counts as changed).

        Raises: Conflict (code `etag_stale`).
        """
        ...

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        """Remove; absent is fine. With `etag` as in `put`. Raises: Conflict (code `etag_stale`)."""
        ...

    async def check(self) -> None:
        """Return when the store answers a read. Raises: SidecarUnavailable, NotFound (no such component)."""
        ...


# --- Engine: keeps hosts alive, waits, timers, events, failover ---------------------------------


@dataclass(frozen=True, slots=True)
class Drive:
    """Host asks: drive this input (JSON). The engine answers with what the `drive` function returned."""

    input: JsonObject


@dataclass(frozen=True, slots=True)
class Pause:
    """Host asks: wait for `wake`, at the latest `seconds` (None: without limit). Answer: True if woken."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Again:
    """Host asks: start over with this input and an empty history (keeps histories short)."""

    input: JsonObject


HostStep: TypeAlias = Drive | Pause | Again
HostBody: TypeAlias = Callable[[JsonObject], Generator[HostStep, Any, JsonObject]]
"""The host: a deterministic generator over steps; replayed from the top by Dapr Workflow."""

DriveFunction: TypeAlias = Callable[[JsonObject], Awaitable[JsonObject]]
"""What an engine calls for `Drive`; at-least-once, so it must tolerate repetition."""


class HostStatus(StrEnum):
    """What an engine says of an instance."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    TERMINATED = "terminated"


class Engine(Protocol):
    """Keeps host instances alive. Ids are `[A-Za-z0-9_-]{1,64}` and never reused."""

    def serve(self, body: HostBody, drive: DriveFunction) -> AbstractAsyncContextManager[None]:
        """While open, this process executes hosts. Entering returns once the worker is connected."""
        ...

    async def start(self, instance: str, input: JsonObject) -> None:
        """Start a host; starting one that exists already (in any status) changes nothing."""
        ...

    async def wake(self, instance: str) -> None:
        """End the host's current or next `Pause`; a hint, lost without harm. NotFound if unknown."""
        ...

    async def terminate(self, instance: str) -> None:
        """Stop the host for good; unknown or finished is fine."""
        ...

    async def status(self, instance: str) -> HostStatus | None:
        """None when the engine does not know the instance."""
        ...

    @property
    def connected(self) -> bool:
        """Whether this process's worker can receive work right now."""
        ...


# --- Bus -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message as it arrived: CloudEvents fields that we use, `data` as JSON."""

    id: str
    source: str
    topic: str
    data: Json
    type: str = "perdure.message.v1"
    trace_parent: str = ""
    extensions: Mapping[str, str] = field(default_factory=dict)


class Delivery(StrEnum):
    """What the handler wants the broker to do."""

    SUCCESS = "SUCCESS"
    RETRY = "RETRY"
    DROP = "DROP"


BusHandler: TypeAlias = Callable[[Envelope], Awaitable[Delivery]]


class Bus(Protocol):
    """One pub/sub component. At-least-once in; a handler that raises counts as `RETRY`."""

    name: str

    async def publish(self, message: Envelope) -> None:
        """Return once the broker has it."""
        ...

    def subscribe(self, topic: str, handler: BusHandler, *, dead_letter: str | None = None) -> None:
        """Declare before the service starts. A dropped message goes to topic `dead_letter`, if given."""
        ...

    async def deliver(self, envelope: Envelope) -> Delivery:
        """Hand a message that arrived from outside to its handler (used by the HTTP side)."""
        ...

    @property
    def subscriptions(self) -> Mapping[str, str | None]:
        """Declared topics with their dead-letter topic."""
        ...


# --- Invoker -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """Reply of a service: HTTP status, headers in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Invoker(Protocol):
    """Service invocation: calls `path` of another app through both sidecars."""

    async def call(
        self,
        app_id: str,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Answer:
        """The answer whatever its status. Raises: NotFound (code `app_unknown`), Transient."""
        ...


# --- Jobs ----------------------------------------------------------------------------------------

JobHandler: TypeAlias = Callable[[JsonObject], Awaitable[None]]


class Jobs(Protocol):
    """Schedules kept by the sidecar; each tick reaches one replica of the app."""

    async def schedule(self, name: str, every: str, data: JsonObject | None = None) -> None:
        """Create or replace job `name`; `every` like `@every 30s`."""
        ...

    async def cancel(self, name: str) -> None:
        """Remove the job; unknown is fine."""
        ...

    def on(self, name: str, handler: JobHandler) -> None:
        """Declare who handles ticks of `name`."""
        ...

    async def deliver(self, name: str, data: JsonObject) -> None:
        """Hand a tick that arrived from outside to its handler. Raises: NotFound."""
        ...


# --- Chat ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A tool call the model asked for; `arguments` is the raw JSON text the model wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message for or from a model. `role`: system, user, assistant or tool."""

    role: str
    text: str = ""
    calls: tuple[ChatCall, ...] = ()
    call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class ChatTool:
    """A tool offered to the model; `schema` is the JSON schema of its arguments."""

    name: str
    description: str
    schema: JsonObject


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the model said. `finish`: stop, tool_calls, length, …; tokens are 0 when not reported."""

    text: str
    calls: tuple[ChatCall, ...] = ()
    finish: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    model: str = ""


class Chat(Protocol):
    """A conversation component.

    Raises: Transient (code `model_rate_limited` for 429, `model_unavailable` for 5xx and cut
    connections), Failed (code `model_rejected` for other 4xx), NotFound (no such component).
    """

    async def converse(
        self,
        component: str,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ChatTool] = (),
        temperature: float | None = None,
        response_schema: JsonObject | None = None,
        timeout_s: float = 120.0,
    ) -> ChatReply:
        """One call, no retries inside."""
        ...


# --- Secrets -------------------------------------------------------------------------------------


class Secrets(Protocol):
    """A secret store component."""

    async def get(self, store: str, name: str) -> str:
        """The secret's text. Raises: NotFound (code `secret_unknown`)."""
        ...


@dataclass(frozen=True, slots=True)
class Doors:
    """Everything a service may reach, handed around as one value.

    `stores` and `buses` are by component name.
    """

    stores: Mapping[str, StateStore]
    buses: Mapping[str, Bus]
    engine: Engine
    invoker: Invoker
    jobs: Jobs
    chat: Chat
    secrets: Secrets
