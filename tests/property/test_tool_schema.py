"""Laws of tools over generated calls."""

from __future__ import annotations

import json
from datetime import date
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from perdure.tools import ParsedCall, Toolbox, ToolProblem, tool


@tool
def book(
    room: str, night: date, guests: int = 1, price: float | None = None, tags: list[str] | None = None,
    kind: Literal["single", "double"] = "single",
) -> str:  # fmt: skip
    """Book."""
    return room


BOX = Toolbox([book])
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
ARGUMENTS = st.fixed_dictionaries(
    {"room": TEXT, "night": st.dates().map(date.isoformat)},
    optional={
        "guests": st.integers(),
        "price": st.none() | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),  # -0.0 is 0.0
        "tags": st.none() | st.lists(TEXT),
        "kind": st.sampled_from(["single", "double"]),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def parsed(arguments: dict[str, Any]) -> ParsedCall:
    call = BOX.validate("book", json.dumps(arguments))
    assert isinstance(call, ParsedCall), call
    return call


@given(ARGUMENTS)
def test_arguments_that_fit_are_kept_and_reading_them_again_changes_nothing(arguments: dict[str, Any]) -> None:
    """The normal form of arguments is a fixed point, so its digest is stable across replays."""
    once = parsed(arguments)
    assert {name: once.arguments[name] for name in arguments} == arguments
    again = parsed(once.arguments)
    assert (again.arguments, again.values, again.digest) == (once.arguments, once.values, once.digest)


@given(ARGUMENTS, st.randoms())
def test_the_order_of_arguments_does_not_change_the_digest(arguments: dict[str, Any], random: Any) -> None:
    """A model that writes the same call in another order makes the same call."""
    names = list(arguments)
    random.shuffle(names)
    assert parsed({name: arguments[name] for name in names}).digest == parsed(arguments).digest


@given(ARGUMENTS, ARGUMENTS)
def test_other_arguments_have_another_digest(one: dict[str, Any], other: dict[str, Any]) -> None:
    """An approval of one call never covers another."""
    first, second = parsed(one), parsed(other)
    assert (first.digest == second.digest) == (first.arguments == second.arguments)


@given(st.text() | JSON.map(json.dumps))
def test_whatever_a_model_writes_is_a_call_or_a_problem(text: str) -> None:
    """Nothing a model writes raises; what is no call says what to correct."""
    call = BOX.validate("book", text)
    if isinstance(call, ToolProblem):
        assert call.text.startswith("The arguments of tool 'book'")
        call.text.encode()
