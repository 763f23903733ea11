"""What `@tool` makes of a function."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Annotated, Any

import pytest
from pydantic import Field

from perdure.effect import Doubt, Effect
from perdure.errors import Invalid
from perdure.tools import Tool, Toolbox, ToolContext, tool


@tool
async def book(room: str, night: date, guests: Annotated[int, Field(ge=1)] = 1) -> str:
    """Book a room for one night.

    Breakfast is included.

    Args:
        room: Number of the room,
            as on the door.
        night (date): The night.
        guests: How many sleep there.

    Returns:
        The booking's number.

    Raises:
        ValueError: never shown to the model.
    """
    return f"{room} {night} {guests}"


def test_an_undeclared_effect_is_once_and_its_doubt_is_told() -> None:
    assert (book.effect, book.doubt, book.timeout_s, book.approval) == (Effect.ONCE, Doubt.TELL, 60.0, False)


def test_name_description_and_schema_come_from_the_function() -> None:
    assert book.name == "book"
    expected = "Book a room for one night.\n\nBreakfast is included.\nReturns: The booking's number."
    assert book.description == expected
    assert book.schema == {
        "type": "object",
        "additionalProperties": False,
        "required": ["room", "night"],
        "properties": {
            "room": {"type": "string", "description": "Number of the room, as on the door."},
            "night": {"type": "string", "format": "date", "description": "The night."},
            "guests": {"type": "integer", "minimum": 1, "default": 1, "description": "How many sleep there."},
        },
    }
    assert book.offer.schema == book.schema


async def test_a_tool_is_still_the_function() -> None:
    assert await book("12", date(2026, 1, 1)) == "12 2026-01-01 1"
    assert book.__doc__ is not None
    assert book.__doc__.startswith("Book a room")


def test_a_tool_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        book.effect = Effect.READ  # type: ignore[misc]


def test_the_context_is_no_part_of_the_schema() -> None:
    @tool
    def note(text: str, context: ToolContext | None = None) -> None:
        """Note."""

    assert list(_properties(note)) == ["text"]


def test_parameters_may_be_called_like_parts_of_a_model() -> None:
    @tool
    def odd(schema: str, copy: int, _x: bool, model_config: str = "a") -> str:
        """Odd."""
        return f"{schema}{copy}{_x}{model_config}"

    assert list(_properties(odd)) == ["schema", "copy", "_x", "model_config"]


def test_a_function_without_docstring_and_parameters_is_a_tool() -> None:
    @tool(name="ping-2", effect="read")
    def anything() -> str:
        return "pong"

    assert (anything.name, anything.description, anything.schema["properties"]) == ("ping-2", "", {})


def test_reconcile_may_be_attached_once_by_decorator() -> None:
    @tool(effect="once")
    async def pay(amount: int) -> str:
        """Pay."""
        return str(amount)

    @pay.reconciles
    async def paid(key: str) -> str | None:
        return key

    assert pay.reconcile is paid
    with pytest.raises(Invalid, match="already"):
        pay.reconciles(paid)


def _unhinted(a: str, b) -> None: ...  # type: ignore[no-untyped-def]


def _open_ended(*names: str) -> None: ...


def _unresolved(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def _no_schema(a: Tool[Any, Any]) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_unhinted, "'b' has no type hint"),
        (_open_ended, "ordinary named parameter"),
        (_unresolved, "Missing"),
        (lambda: None, "name"),
    ],
)
def test_a_signature_that_a_model_cannot_be_told_is_refused(function: Any, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        tool(function)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"effect": "twice"}, "'read', 'idempotent', 'once'"),
        ({"doubt": "guess"}, "'tell', 'ask', 'retry'"),
        ({"timeout_s": 0}, "above 0"),
        ({"name": "no spaces"}, "A-Z"),
        ({"reconcile": lambda: None}, "it takes 0 parameters"),
    ],
)
def test_wrong_options_are_refused_with_the_choices(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        tool(**options)(book.function)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(Invalid, match="two tools are named 'book'"):
        Toolbox([book, book.function])


@pytest.mark.parametrize(("amount", "asked"), [(5, False), (500, True)])
def test_approval_may_depend_on_the_arguments(amount: int, asked: bool) -> None:
    @tool(approval=lambda values: values["amount"] > 100)
    def pay(amount: int) -> None:
        """Pay."""

    assert pay.needs_approval({"amount": amount}) is asked


def _properties(made: Tool[Any, Any]) -> dict[str, Any]:
    properties = made.schema["properties"]
    assert isinstance(properties, dict)
    return properties


def test_a_bound_method_is_a_tool() -> None:
    class Hotel:
        """Has rooms."""

        def free(self, room: str) -> bool:
            """Tell whether a room is free."""
            return bool(room)

    assert list(_properties(tool(Hotel().free))) == ["room"]
