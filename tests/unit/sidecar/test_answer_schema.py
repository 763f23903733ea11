"""What of a JSON schema a conversation component can carry."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from perdure.sidecar.dapr.answer_schema import carried


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Leg(BaseModel):
    city: str = Field(description="Where to.", min_length=2)
    nights: int = Field(ge=1)


class Journey(BaseModel):
    legs: list[Leg]
    mood: Mood
    kind: Literal["work"]
    note: str | None = None


class Tree(BaseModel):
    children: list[Tree]


class Nullable(BaseModel):
    """What must be said, but may be null."""

    note: str | None


class Choice(BaseModel):
    either: int | str


class Level(BaseModel):
    value: Literal[1, 2]


def test_definitions_are_put_where_they_are_used_and_options_lose_their_null() -> None:
    assert carried(Journey.model_json_schema()) == {
        "type": "object",
        "properties": {
            "legs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "description": "Where to."},
                        "nights": {"type": "integer"},
                    },
                    "required": ["city", "nights"],
                    "additionalProperties": False,
                },
            },
            "mood": {"type": "string", "enum": ["good", "bad"]},
            "kind": {"type": "string", "enum": ["work"]},
            "note": {"type": "string"},
        },
        "required": ["legs", "mood", "kind"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("type_", [Tree, Nullable, Choice, Level, dict[str, int], list[int], Any])
def test_a_schema_that_would_lose_its_meaning_is_not_carried(type_: Any) -> None:
    assert carried(TypeAdapter(type_).json_schema()) is None
