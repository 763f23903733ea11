"""Answers of a shape, and the counting of tokens and money."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from perdure.errors import Invalid
from perdure.llm import AnswerShape, Misfit, Price, PriceTable, Usage, UsageLimits, estimate_tokens
from perdure.sidecar.ports import ChatReply


class Forecast(BaseModel):
    """Tomorrow's weather."""

    city: str
    degrees: int


class Tree(BaseModel):
    """A type that names itself."""

    children: list[Tree]


class Plain:
    """No type that pydantic knows."""


@dataclass
class Point:
    """A place."""

    x: float


@pytest.mark.parametrize(
    ("shape", "text", "value"),
    [
        (Forecast, '{"city": "Oslo", "degrees": 3}', Forecast(city="Oslo", degrees=3)),
        (Forecast, '```json\n{"city": "Oslo", "degrees": 3}\n```', Forecast(city="Oslo", degrees=3)),
        (Point, '{"x": 1}', Point(1.0)),
        (Tree, '{"children": []}', Tree(children=[])),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (str, '{"value": "x"}', "x"),
    ],
)
def test_an_answer_becomes_a_value_of_the_type(shape: type[Any], text: str, value: Any) -> None:
    assert AnswerShape(shape).parse(text) == value


@pytest.mark.parametrize("shape", [Forecast, Point, Tree, list[Forecast], int])
def test_the_schema_is_always_that_of_an_object(shape: type[Any]) -> None:
    schema = AnswerShape(shape).schema
    assert schema.get("type") == "object" or "$ref" in schema


@pytest.mark.parametrize(
    ("shape", "text", "said"),
    [
        (Forecast, "It will rain.", "JSON"),
        (Forecast, '{"city": "Oslo", "degrees": "cold"}', "degrees: "),
        (list[int], "[1]", "'value'"),
        (list[int], '{"value": ["x"]}', "0: "),
        (list[int], "none", "'value'"),
    ],
)
def test_a_misfit_tells_the_model_what_to_correct(shape: type[Any], text: str, said: str) -> None:
    misfit = AnswerShape(shape).parse(text)
    assert isinstance(misfit, Misfit)
    assert said in misfit.text
    assert "following this schema" in misfit.text


class Known(BaseModel):
    """A city that a defective validator knows."""

    city: str

    @field_validator("city")
    @classmethod
    def known(cls, city: str) -> str:
        """Look for what is not there."""
        return str(city.nosuch)  # type: ignore[attr-defined]


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("shape", "text", "said"),
    [
        (Known, '{"city": "Bergen"}', "AttributeError: 'str' object has no attribute 'nosuch'"),
        (list[Known], '{"value": [{"city": "Bergen"}]}', "AttributeError"),
        (Tree, DEEP, "recursion limit"),
        (list[int], DEEP, "recursion"),
        (str, '{"value": "\\ud800"}', ""),
    ],
)
def test_whatever_a_validator_or_a_strange_answer_raises_is_a_misfit_that_can_be_written(
    shape: type[Any], text: str, said: str
) -> None:
    misfit = AnswerShape(shape).parse(text)
    assert isinstance(misfit, Misfit)
    assert said in misfit.text
    assert misfit.text.encode()
    assert len(misfit.text) < 5000


def test_a_type_without_schema_is_refused() -> None:
    with pytest.raises(Invalid, match="no JSON schema"):
        AnswerShape(Plain)


def test_usage_adds_up() -> None:
    replies = [ChatReply("a", input_tokens=10, output_tokens=2), ChatReply("b", input_tokens=5)]
    total = Usage.total(Usage.of(reply) for reply in replies)
    assert (total, total.total_tokens) == (Usage(2, 15, 2), 17)


def test_costs_are_exact_and_unknown_when_a_price_is_missing() -> None:
    table = PriceTable({"m": Price(Decimal("2.50"), Decimal(10))})
    assert table.cost({"m": Usage(1, 1_000, 100)}) == Decimal("0.0035")
    assert table.cost({"m": Usage(1, 1_000, 100), "other": Usage(1, 1, 0)}) is None
    assert table.cost({"other": Usage(1, 0, 0)}) == 0


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (UsageLimits(), None),
        (UsageLimits(model_calls=3), None),
        (UsageLimits(model_calls=2), "2 of 2 model calls used"),
        (UsageLimits(total_tokens=100), "110 of 100 total tokens used"),
        (UsageLimits(cost=Decimal("0.5")), "cost of 0.50 has reached the limit of 0.5"),
    ],
)
def test_a_limit_that_is_reached_is_named(limits: UsageLimits, said: str | None) -> None:
    assert limits.reached(Usage(2, 100, 10), Decimal("0.50")) == said


def test_tokens_are_estimated_from_bytes() -> None:
    assert [estimate_tokens(text) for text in ("", "word", "words", "日本")] == [0, 1, 2, 2]
