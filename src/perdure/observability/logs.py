"""Structured logs: one JSON object a line for machines, or aligned and coloured for people.

`structlog` is imported with the first line written, not with perdure: it takes as long to import as everything else.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias

from perdure.errors import PerdureError
from perdure.observability.context import log_fields, received_trace_parent, trace_id_of
from perdure.observability.names import CONTENT_FIELDS, LogField

if TYPE_CHECKING:
    from structlog.typing import Processor

LogFormat: TypeAlias = Literal["auto", "json", "people"]
EventDict: TypeAlias = MutableMapping[str, Any]

_LOGGED = "_perdure_logged"
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

TALKATIVE = ("WorkflowRuntime", "durabletask-worker", "httpx2")
"""Libraries that tell each of their steps at INFO, which is what we call DEBUG: a line for each call and each event."""


class Logger:
    """Writes events with fields: `log.info("run_parked", run=run_id)`. The event is a constant, never a sentence."""

    __slots__ = ("_bound", "_name")

    def __init__(self, name: str, **bound: Any) -> None:
        self._name = name
        self._bound = bound

    def bind(self, **fields: Any) -> Logger:
        """A logger that adds these fields to each line."""
        return Logger(self._name, **{**self._bound, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        """For who develops perdure."""
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Something normal that an operator wants to find again."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something was wrong and has been dealt with."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Somebody has to act."""
        self._write("error", event, fields)

    def failure(self, event: str, error: BaseException, **fields: Any) -> None:
        """Log `error` with its traceback, unless a deeper place has logged this very object already.

        For every place where a failure ends its way up: whoever comes first writes it, so it appears once.
        """
        if getattr(error, _LOGGED, False):
            return
        # An exception class with slots has no room for the mark; logging it twice is better than not at all.
        if hasattr(error, "__dict__"):
            setattr(error, _LOGGED, True)
        if isinstance(error, PerdureError):
            fields = {LogField.CODE.value: error.code, LogField.DETAILS.value: error.details, **fields}
        self._write("error", event, {"exc_info": error, **fields})

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        plain = logging.getLogger(self._name)
        number = _LEVELS[level]
        if not plain.isEnabledFor(number):
            return
        everything = {**self._bound, **fields}
        load_logging()
        structlog: Any = sys.modules.get("structlog")
        if structlog is not None and structlog.is_configured():
            getattr(structlog.get_logger(), level)(event, **{LogField.LOGGER.value: self._name}, **everything)
        else:  # used as a library that nobody told how to log: leave it to `logging`, as libraries do
            raised = everything.pop("exc_info", None)
            shown = {name: value for name, value in everything.items() if name not in CONTENT_FIELDS}
            words = "".join(f" {name}={value!r}" for name, value in {**log_fields(), **shown}.items())
            plain.log(number, "%s%s", event, words, exc_info=raised)


def get_logger(name: str) -> Logger:
    """The logger called `name` (a package of perdure, or of yours); costs nothing until it writes."""
    return Logger(name)


def configure_logging(
    *, format: LogFormat = "auto", level: str = "INFO", stream: TextIO | None = None, contents: bool = False
) -> None:
    """Set up logs for the process: ours, and through `logging` those of all libraries, in one form on one stream.

    `auto` is for people on a terminal and JSON elsewhere. Without `contents`, what users, models and tools said is
    left out. Called once at start; calling it again replaces what was set up.
    """
    out = stream or sys.stderr
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Output)]:
        root.removeHandler(old)
    root.addHandler(_Output(out, format == "people" or (format == "auto" and out.isatty()), contents))
    root.setLevel(level.upper())
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING if level.upper() == "INFO" else logging.NOTSET)


def load_logging() -> None:
    """Load what the first line would load; for a thread with time to spare. Does nothing the second time."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Output):
            handler.load()


class _Output(logging.StreamHandler[TextIO]):
    """Where all lines of the process go. A service that starts goes on with its runs before it has anything to say,
    so structlog comes with the first line."""

    def __init__(self, out: TextIO, people: bool, contents: bool) -> None:
        super().__init__(out)
        self._out = out
        self._people = people
        self._contents = contents
        self._loaded = False

    def load(self) -> None:
        if self._loaded:
            return
        import structlog

        shared = _processors(self._contents)
        rendering = _rendering(self._people, self._out.isatty())
        structlog.configure(
            processors=[*shared, *rendering],
            logger_factory=structlog.WriteLoggerFactory(file=self._out),
            cache_logger_on_first_use=False,
        )
        self.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_last(rendering)))
        self._loaded = True

    def format(self, record: logging.LogRecord) -> str:
        self.load()
        return super().format(record)


def _processors(contents: bool) -> list[Processor]:
    import structlog

    chain: list[Processor] = [
        _add_context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    return chain if contents else [*chain, _without_contents]


def _rendering(people: bool, colors: bool) -> list[Processor]:
    import structlog

    if people:
        return [structlog.dev.ConsoleRenderer(colors=colors)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _last(rendering: list[Processor]) -> list[Processor]:
    import structlog

    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering]


def _add_context(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for name, value in log_fields().items():
        event.setdefault(name, value)
    trace = _current_trace_id()
    if trace:
        event.setdefault(LogField.TRACE_ID.value, trace)
    record = event.get("_record")  # of a library that logs through `logging`
    if isinstance(record, logging.LogRecord):
        event.setdefault(LogField.LOGGER.value, record.name)
    return event


def _without_contents(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for name in CONTENT_FIELDS & event.keys():
        del event[name]
    return event


def _current_trace_id() -> str:
    module: Any = sys.modules.get("opentelemetry.trace")  # not loaded: tracing is off
    if module is not None:
        context = module.get_current_span().get_span_context()
        if context.is_valid:
            return f"{context.trace_id:032x}"
    return trace_id_of(received_trace_parent())
