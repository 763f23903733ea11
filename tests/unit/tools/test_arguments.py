"""What a model writes is checked before anything runs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import pytest
from pydantic import BaseModel, BeforeValidator

from perdure.tools import ParsedCall, ProblemKind, Toolbox, ToolProblem, tool
from perdure.tools.arguments import digest


class Size(StrEnum):
    """Of a bed."""

    SMALL = "small"
    LARGE = "large"


class Guest(BaseModel):
    """Who sleeps there."""

    name: str
    born: date


@tool
def book(room: str, night: date, guests: int = 1, price: float = 0.0) -> str:
    """Book."""
    return room


@tool
def rich(
    at: datetime, length: timedelta, money: Decimal, who: Guest, sizes: set[Size], pair: tuple[int, str], ref: UUID
) -> None:
    """Take what JSON does not have."""


BOX = Toolbox([book, rich])


def parsed(name: str, text: str) -> ParsedCall:
    call = BOX.validate(name, text)
    assert isinstance(call, ParsedCall), call
    return call


def problem(name: str, text: str) -> ToolProblem:
    call = BOX.validate(name, text)
    assert isinstance(call, ToolProblem), call
    return call


def test_values_that_json_lacks_come_from_their_text() -> None:
    text = """{"at": "2026-01-02T03:04:05Z", "length": "PT1H", "money": "1.10", "sizes": ["small", "large"],
        "who": {"name": "Ann", "born": "1990-05-06"}, "pair": [1, "x"], "ref": "12345678123456781234567812345678"}"""
    values = parsed("rich", text).values
    assert values == {
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "length": timedelta(hours=1),
        "money": Decimal("1.10"),
        "who": Guest(name="Ann", born=date(1990, 5, 6)),
        "sizes": {Size.SMALL, Size.LARGE},
        "pair": (1, "x"),
        "ref": UUID("12345678123456781234567812345678"),
    }


def test_defaults_are_filled_in_and_do_not_change_the_digest() -> None:
    short = parsed("book", '{"room": "1", "night": "2026-01-01"}')
    long = parsed("book", '{"price": 0, "guests": 1, "night": "2026-01-01", "room": "1"}')
    assert short.arguments == {"room": "1", "night": "2026-01-01", "guests": 1, "price": 0.0}
    assert short.digest == long.digest == digest("book", short.arguments)


def test_the_digest_covers_tool_and_arguments() -> None:
    assert len({digest("a", {"x": 1}), digest("b", {"x": 1}), digest("a", {"x": 2}), digest("a", {"y": 1})}) == 4


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ('{"room": ', ProblemKind.BROKEN_JSON, "not valid JSON"),
        ("book it", ProblemKind.BROKEN_JSON, "Send one JSON object"),
        ('{"room": "\\ud800", "night": "2026-01-01"}', ProblemKind.BROKEN_JSON, "not valid JSON"),
        ("[1]", ProblemKind.NOT_AN_OBJECT, "must be one JSON object"),
        ('"room"', ProblemKind.NOT_AN_OBJECT, "must be one JSON object"),
        ("", ProblemKind.WRONG_ARGUMENTS, "room is missing; night is missing"),
        (
            '{"room": 1, "night": "2026-01-01"}',
            ProblemKind.WRONG_ARGUMENTS,
            "room: Input should be a valid string (got 1)",
        ),
        ('{"room": "1", "night": "tomorrow"}', ProblemKind.WRONG_ARGUMENTS, "valid date"),
        ('{"room": "1", "night": "2026-01-01", "guests": "2"}', ProblemKind.WRONG_ARGUMENTS, "guests: Input should be"),
        ('{"room": "1", "night": "2026-01-01", "guest": 2}', ProblemKind.WRONG_ARGUMENTS, "guest is unknown"),
        ('{"room": "1", "night": "2026-01-01", "price": NaN}', ProblemKind.WRONG_ARGUMENTS, "finite"),
    ],
)
def test_a_wrong_call_is_told_in_words_that_help_to_correct_it(text: str, kind: ProblemKind, said: str) -> None:
    found = problem("book", text)
    assert found.kind is kind
    assert said in found.text
    assert found.result().is_error


def test_the_problem_names_the_parameters() -> None:
    assert "Parameters: room, night, guests, price." in problem("book", "{}").text


def test_an_unknown_tool_is_told_with_what_there_is() -> None:
    found = problem("bok", "{}")
    assert found.kind is ProblemKind.UNKNOWN_TOOL
    assert found.text == "Tool 'bok' is unknown; did you mean 'book'? Available: book, rich."


def odd(_: object) -> object:
    return {(1, 2): "no key of JSON"}


def half(_: object) -> object:
    raise RuntimeError("half a character: \ud800")


@tool
def pay_odd(amount: Annotated[int, BeforeValidator(odd)]) -> None:
    """Pay."""


@tool
def pay_half(amount: Annotated[int, BeforeValidator(half)]) -> None:
    """Pay."""


@pytest.mark.parametrize(
    ("name", "said"), [("pay_odd", "amount: Input should be a valid integer (got a dict)"), ("pay_half", "half a char")]
)
def test_whatever_a_validator_makes_of_an_argument_the_problem_can_be_told(name: str, said: str) -> None:
    told = Toolbox([pay_odd, pay_half]).validate(name, '{"amount": 1}')
    assert isinstance(told, ToolProblem)
    assert told.kind is ProblemKind.WRONG_ARGUMENTS
    assert said in told.text
    assert told.text.encode()
