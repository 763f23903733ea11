"""What log lines carry, and what they leave out."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from perdure.errors import Broken
from perdure.observability.context import log_context, received_trace
from perdure.observability.logs import configure_logging, get_logger

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_and_knows_what_the_work_is_about() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    with log_context(session="s-1", run="r-1"), log_context(caller="ann", session=""), received_trace(PARENT):
        get_logger("perdure.x").bind(tool="book").info("tool_called", attempt=2)
    get_logger("perdure.x").info("later")
    first, later = written(stream)
    assert {name: first[name] for name in first if name != "timestamp"} == {
        "event": "tool_called",
        "level": "info",
        "logger": "perdure.x",
        "session": "s-1",
        "run": "r-1",
        "caller": "ann",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "tool": "book",
        "attempt": 2,
    }
    assert "session" not in later


def test_lines_of_libraries_look_the_same() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    with log_context(run="r-1"):
        logging.getLogger("uvicorn").warning("port %s is busy", 1)
    (line,) = written(stream)
    assert (line["event"], line["level"], line["logger"], line["run"]) == (
        "port 1 is busy",
        "warning",
        "uvicorn",
        "r-1",
    )


def test_levels_below_the_one_set_are_not_written() -> None:
    stream = io.StringIO()
    configure_logging(format="json", level="warning", stream=stream)
    get_logger("x").info("quiet")
    logging.getLogger("lib").info("quiet")
    get_logger("x").warning("loud")
    assert [line["event"] for line in written(stream)] == ["loud"]


@pytest.mark.parametrize("contents", [False, True])
def test_contents_are_left_out_unless_wanted(contents: bool) -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream, contents=contents)
    get_logger("x").info("said", text="my secret", run="r")
    (line,) = written(stream)
    assert line.get("text") == ("my secret" if contents else None)
    assert line["run"] == "r"


def test_a_failure_is_logged_once_by_whoever_comes_first() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    error = Broken("log_gap", "commit 7 is missing", n=7)
    get_logger("deep").failure("log_broken", error)
    get_logger("top").failure("request_failed", error)
    (line,) = written(stream)
    assert (line["logger"], line["code"], line["details"]) == ("deep", "log_gap", {"n": 7})
    assert "commit 7 is missing" in line["exception"]


def test_setting_up_again_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(format="json", stream=first)
    configure_logging(format="people", stream=second)
    logging.getLogger("lib").warning("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert "\x1b" not in second.getvalue()


def test_as_a_library_it_leaves_logging_to_the_program(caplog: pytest.LogCaptureFixture) -> None:
    with log_context(run="r-1"), caplog.at_level("INFO"):
        get_logger("perdure.x").info("called", tool="book", arguments="secret")
    assert [record.getMessage() for record in caplog.records] == ["called run='r-1' tool='book'"]


def test_libraries_that_tell_every_step_are_heard_only_when_something_is_wrong() -> None:
    stream = io.StringIO()
    configure_logging(format="json", stream=stream)
    for name in ("durabletask-worker", "httpx2"):
        logging.getLogger(name).info("a step")
        logging.getLogger(name).warning("trouble")
    assert [(line["logger"], line["event"]) for line in written(stream)] == [
        ("durabletask-worker", "trouble"),
        ("httpx2", "trouble"),
    ]
