"""All settings, one section for each package. The only place that reads the environment.

A setting is `PERDURE_SECTION__NAME`; a few also have the name under which Dapr or OpenTelemetry set them. Plain
pydantic reads them: importing pydantic-settings would take a tenth of a second of each start after a crash, and
names from elsewhere, origins and suggestions for misspelt names would have to be written by hand all the same.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from perdure.errors import Invalid

PREFIX = "PERDURE_"
FILE_NAME = "PERDURE_SETTINGS_FILE"
NOT_OURS = ("PERDURE_TEST_", "PERDURE_CHAOS_")
"""Steer the tests; services that these start inherit them."""
KIB = 1024


class Section(BaseModel):
    """A group of settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Bytes = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Also:
    """Marks a setting that can be set under a name from elsewhere, too."""

    def __init__(self, *names: str) -> None:
        self.names = names


class RunSettings(Section):
    """Driving runs."""

    host_after_s: Seconds = 5.0
    """Age at which an open run gets a Dapr workflow: most turns end sooner and are spared its 5 ms."""
    poll_s: Seconds = 1.0
    """How often driven subjects are looked at for commits of others: how fast a cancel from elsewhere works."""
    beat_s: Seconds = 2.0
    """How often a replica that drives runs shows that it lives; one small write each time."""
    stale_s: Seconds = 10.0
    """How long a replica may show no life before others take its runs: five beats, so a pause of garbage
    collection or a slow store is not taken for death."""
    start_by_s: Seconds = 2.0
    """How long after its reservation a `once` effect may still begin; who adopts the run waits this long."""
    max_active_runs: Count = 1000
    """Runs driven at once; beyond it callers get 429. A run holds some tens of KiB while it is driven."""
    max_claims: Count = 20
    """Claims without progress before a run is parked: by then it kills its process rather than meeting bad luck. An
    innocent run beside a process that dies every two seconds survives this many of its lives."""
    shutdown_s: Seconds = 10.0
    """How long running actions may go on after SIGTERM: less than the 30 s after which Kubernetes kills."""
    host_rounds: Count = 50
    """Rounds after which a host starts over with an empty history; the history is replayed in each round."""
    sweep_every_s: Seconds = 25.0
    """How often abandoned runs of all replicas are looked for; one replica does it each time. With the stale time it
    is how long a run of a dead replica rests at most: 35 s."""
    pace_s: Annotated[float, Field(ge=0)] = 0.0
    """Slow motion for demonstrations: how long each outcome is held back before it is recorded."""


class LogSettings(Section):
    """Logs of subjects in the state store."""

    segment_commits: Count = 64
    """Commits that make a segment: one bulk read gets the tail."""
    segment_bytes: Bytes = 512 * KIB
    """Bytes that make a segment; eight fit into a message of the sidecar."""
    blob_bytes: Bytes = 64 * KIB
    """Values above this are kept beside the log, so that reading the log stays quick."""
    snapshot_bytes: Bytes = 64 * KIB
    """Folds above this are not kept in a segment: reading them would cost more than folding again."""
    cache_subjects: Annotated[int, Field(ge=0)] = 256
    """Logs kept in memory when nobody uses them; an idle session beyond these costs nothing."""


class HttpSettings(Section):
    """The HTTP side of a service."""

    wait_s: Annotated[float, Field(ge=0)] = 30.0
    """How long a request waits for its turn before it gets 202: below the 60 s of common proxies."""
    max_body_bytes: Bytes = 1024 * KIB
    """Largest request: a long document as text; the sidecar's own limit is 4 MiB."""
    keep_alive_s: Seconds = 15.0
    """Silence after which an event stream sends a comment, so that proxies keep it open."""


class DaprSettings(Section):
    """The sidecar. `dapr run` and Kubernetes set these under their own names."""

    app_id: Annotated[str, Also("APP_ID")] = "perdure"
    """This app's name for other apps."""
    app_port: Annotated[Port, Also("APP_PORT")] = 8000
    """Where this app listens."""
    app_host: str = "127.0.0.1"
    """Address this app listens on: only the sidecar beside it needs to reach it. In a container 0.0.0.0."""
    host: Annotated[str, Also("DAPR_RUNTIME_HOST")] = "127.0.0.1"
    """Where the sidecar listens."""
    grpc_port: Annotated[Port, Also("DAPR_GRPC_PORT")] = 50001
    """The sidecar's gRPC port; the default is Dapr's."""
    http_port: Annotated[Port, Also("DAPR_HTTP_PORT")] = 3500
    """The sidecar's HTTP port; the default is Dapr's."""
    grpc_endpoint: Annotated[str | None, Also("DAPR_GRPC_ENDPOINT")] = None
    """Whole address of a sidecar elsewhere; wins over host and port."""
    http_endpoint: Annotated[str | None, Also("DAPR_HTTP_ENDPOINT")] = None
    """Whole address of a sidecar elsewhere; wins over host and port."""
    api_token: Annotated[SecretStr | None, Also("DAPR_API_TOKEN")] = None
    """What the sidecar wants to see from this app."""
    app_token: Annotated[SecretStr | None, Also("APP_API_TOKEN")] = None
    """What this app wants to see from the sidecar."""
    slot: Annotated[str | None, Also("POD_NAME")] = None
    """A name that this replica has again after a restart; else made of app-id and port."""
    namespace: Annotated[str, Also("NAMESPACE")] = "default"
    """First part of every key and of every subject."""

    @property
    def grpc_address(self) -> str:
        """Where to reach the sidecar by gRPC."""
        return self.grpc_endpoint or f"{self.host}:{self.grpc_port}"

    @property
    def http_address(self) -> str:
        """Where to reach the sidecar by HTTP."""
        return self.http_endpoint or f"http://{self.host}:{self.http_port}"


class StoresSettings(Section):
    """Names of components, as the files in `components/` have them."""

    workflow: str = "workflowstatestore"
    """Dapr's own workflow state, and the logs of pipelines and orchestrations."""
    agent: str = "agentstatestore"
    """Documents."""
    conversation: str = "conversationstore"
    """Logs of turns."""
    registry: str = "registrystore"
    """Who is there; shared by all apps."""
    pubsub: str = "messagepubsub"
    """Messages between agents."""
    chat: str = "chat"
    """The conversation component of agents that name no model."""
    secrets: str = "secretstore"
    """Credentials."""


class StateSettings(Section):
    """State managers used by themselves."""

    file_path: Path = Path(".perdure/state")
    """Folder of the file backend: in the project, so that it is found and deleted with it."""
    redis_url: Annotated[SecretStr | None, Also("REDIS_URL")] = None
    """Server of the Redis backend; may hold a password."""


class PriceSettings(Section):
    """Price of a million tokens, in your currency."""

    input_per_million: Annotated[Decimal, Field(ge=0)]
    output_per_million: Annotated[Decimal, Field(ge=0)]


class LlmSettings(Section):
    """Model calls."""

    allow_outside: bool = True
    """Whether model calls may leave the process; tests switch it off."""
    timeout_s: Seconds = 120.0
    """Limit for one call: reasoning models may think for a minute or more."""
    max_attempts: Count = 4
    """Calls made for one question: rides out a rate limit of some seconds."""
    first_wait_s: Seconds = 0.5
    """Wait after the first failure; doubled each time, spread at random."""
    max_wait_s: Seconds = 20.0
    """Longest wait, unless the provider asks for more."""
    total_s: Seconds = 120.0
    """No attempt begins after this."""
    openai_api_key: Annotated[SecretStr | None, Also("OPENAI_API_KEY")] = None
    """Key for `openai:` models."""
    openai_base_url: Annotated[str | None, Also("OPENAI_BASE_URL")] = None
    """Another server that speaks the same protocol."""
    prices: dict[str, PriceSettings] = Field(default_factory=dict)
    """By model name, as JSON. None are built in, because they change."""


class ObservabilitySettings(Section):
    """Logs, spans and metrics."""

    log_format: Literal["auto", "json", "people"] = "auto"
    """`auto`: for people on a terminal, JSON elsewhere."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least important level that is written: INFO tells what an operator looks for and not each step."""
    otlp_endpoint: Annotated[str | None, Also("OTEL_EXPORTER_OTLP_ENDPOINT")] = None
    """Base address of an OTLP/HTTP collector; spans and metrics are exported only when it is set."""
    contents: bool = False
    """Whether logs and spans may show what users, models and tools said: personal data, so off."""


class AgentSettings(Section):
    """Defaults of agents that do not say otherwise."""

    context_messages: Count = 50
    """Messages of the conversation shown to the model: some ten turns with tools."""
    max_steps: Count = 20
    """Model calls in a turn before it is ended: real work needs few, a model that turns in circles never ends."""
    max_tokens: Count | None = None
    """Tokens a turn may use; None: no limit but the steps."""
    max_cost: Annotated[Decimal, Field(gt=0)] | None = None
    """What a turn may cost by the prices configured; None: no limit."""
    folder: Path = Path(".perdure")
    """Where agents' tools write files for people to look at, a folder for each agent: in the project, so that they
    are found and deleted with it."""


class Settings(Section):
    """Everything that can be set. Get it from `load_settings`, once, at start."""

    run: RunSettings = RunSettings()
    log: LogSettings = LogSettings()
    http: HttpSettings = HttpSettings()
    dapr: DaprSettings = DaprSettings()
    stores: StoresSettings = StoresSettings()
    state: StateSettings = StateSettings()
    llm: LlmSettings = LlmSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    agent: AgentSettings = AgentSettings()


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting as `perdure settings` shows it; `value` is masked when it is a secret."""

    name: str
    value: str
    origin: str
    about: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a setting is, and under which names it can be set, the first winning."""

    section: str
    field: str
    info: FieldInfo

    @property
    def names(self) -> tuple[str, ...]:
        also = [name for mark in self.info.metadata if isinstance(mark, Also) for name in mark.names]
        return (f"{PREFIX}{self.section}__{self.field}".upper(), *also)


def load_settings(environ: Mapping[str, str] | None = None, file: Path | None = None) -> Settings:
    """Settings from the environment, else from a TOML file, else the defaults.

    The file is `file` or what PERDURE_SETTINGS_FILE names: `[run]`, `poll_s = 2`.

    Raises: Invalid (codes `setting_unknown`, `setting_wrong`, `settings_file_wrong`).
    """
    environ = _environment() if environ is None else environ
    values: dict[str, dict[str, Any]] = _from_file(environ, file)
    for place, name, text in _set_in(environ):
        values.setdefault(place.section, {})[place.field] = _decoded(place, name, text)
    _refuse_unknown(environ)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise _wrong(error) from error


def list_settings(environ: Mapping[str, str] | None = None, file: Path | None = None) -> list[SettingLine]:
    """Every setting with its value and whether the default, the environment or the file gave it. Raises as loading."""
    environ = _environment() if environ is None else environ
    settings = load_settings(environ, file)
    in_file = _from_file(environ, file)
    in_environment = {(place.section, place.field): name for place, name, _ in _set_in(environ)}
    reasons = _reasons()
    lines = []
    for place in _places():
        origin = "file" if place.field in in_file.get(place.section, {}) else "default"
        if name := in_environment.get((place.section, place.field)):
            origin = f"environment ({name})"
        value = getattr(getattr(settings, place.section), place.field)
        lines.append(SettingLine(place.names[0], _shown(value), origin, reasons.get((place.section, place.field), "")))
    return lines


def _environment() -> Mapping[str, str]:
    return os.environ  # noqa: TID251 - this module is the one place


def _places() -> Iterator[_Place]:
    for section, info in Settings.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            for name, field in kind.model_fields.items():
                yield _Place(section, name, field)


def _set_in(environ: Mapping[str, str]) -> Iterator[tuple[_Place, str, str]]:
    """Settings that the environment sets, by the name that wins; an empty value counts as not set."""
    for place in _places():
        name = next((name for name in place.names if environ.get(name)), None)
        if name is not None:
            yield place, name, environ[name]


def _from_file(environ: Mapping[str, str], file: Path | None) -> dict[str, dict[str, Any]]:
    named = file or (Path(environ[FILE_NAME]) if environ.get(FILE_NAME) else None)
    if named is None:
        return {}
    try:
        with named.open("rb") as opened:
            read = tomllib.load(opened)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise Invalid("settings_file_wrong", f"settings file {named} cannot be read: {error}") from error
    known = {place.section for place in _places()}
    for section, content in read.items():
        if section not in known or not isinstance(content, dict):
            raise Invalid("setting_unknown", f"settings file {named}: [{section}] is unknown{_hint(section, known)}")
    return {section: dict(content) for section, content in read.items()}


def _decoded(place: _Place, name: str, text: str) -> Any:
    if place.info.annotation is not None and getattr(place.info.annotation, "__origin__", None) is dict:
        try:
            return json.loads(text)
        except ValueError as error:
            raise Invalid("setting_wrong", f"{name} must be JSON: {error}", name=name) from error
    return text


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {place.names[0] for place in _places()} | {FILE_NAME}
    for name in sorted(environ):
        if name.startswith(PREFIX) and not name.startswith(NOT_OURS) and name not in known:
            raise Invalid("setting_unknown", f"{name} is not a setting{_hint(name, known)}", name=name)


def _hint(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else "; `perdure settings` lists them all"


def _wrong(error: ValidationError) -> Invalid:
    known = {f"{place.section}.{place.field}": place.names for place in _places()}
    problems = []
    for each in error.errors(include_url=False, include_input=False):
        path = ".".join(str(part) for part in each["loc"][:2])
        if each["type"] == "extra_forbidden":
            problems.append(f"{path} is not a setting{_hint(path, set(known))}")
        else:
            problems.append(f"{' or '.join(known.get(path, (path,)))}: {each['msg']}")
    return Invalid("setting_wrong", "; ".join(problems), settings=problems)


def _reasons() -> dict[tuple[str, str], str]:
    """The docstring under each setting. Read from the source when asked, as that takes longer than all of loading."""
    found: dict[tuple[str, str], str] = {}
    for section, info in Settings.model_fields.items():
        body = ast.parse(inspect.getsource(cast("type", info.annotation))).body[0]
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for declared, doc in itertools.pairwise(statements):
            if isinstance(declared, ast.AnnAssign) and isinstance(declared.target, ast.Name):
                match doc:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[section, declared.target.id] = " ".join(text.split())
    return found


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, dict):
        return json.dumps({name: each.model_dump(mode="json") for name, each in value.items()})
    return str(value)
