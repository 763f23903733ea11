"""What may be sent: strict (`false` is no number, `"1"` neither) and closed (an unknown field is a mistake)."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

LONGEST_WAIT_S = 300.0
"""Above this a caller should poll or follow the events; proxies cut the connection anyway."""


def _storable(payload: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """JSON as standards know it: no NaN, no integer beyond 64 bits, no lone surrogate."""
    try:
        orjson.dumps(payload)
        json.dumps(payload, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be stored as JSON: {error}") from error
    return payload


Name = Annotated[str, Field(min_length=1, max_length=256)]
Words = Annotated[str, Field(max_length=2000)]
Payload = Annotated[dict[str, JsonValue], AfterValidator(_storable)]


class Body(BaseModel):
    """A request body."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class AskBody(Body):
    """A user's text for an agent."""

    text: Annotated[str, Field(min_length=1)]
    agent: Name | None = Field(None, description="May be left out where the service has one agent.")
    session: Name | None = Field(None, description="The conversation; without it, this turn is one of its own.")
    key: Name | None = Field(None, description="Asking again with the same key joins the same turn.")
    wait_s: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S)] | None = Field(
        None, description="Seconds to wait for the answer before 202; default: the service's setting."
    )


class CancelBody(Body):
    """Why a turn is cancelled."""

    reason: Words = ""


class SignalBody(Body):
    """A named message to a turn; with an `id`, sending it again changes nothing."""

    name: Name
    payload: Payload = Field(default_factory=dict)
    id: Annotated[str, Field(max_length=256)] = ""


class SteerBody(Body):
    """A word that reaches the model before its next call."""

    text: Annotated[str, Field(min_length=1)]


class DecisionBody(Body):
    """A person's decision about one call, and the digest of the arguments that the person was shown."""

    decision: Literal["approve", "deny"]
    digest: Annotated[str, Field(max_length=256)] = ""
    reason: Words = ""

    @model_validator(mode="after")
    def _names_what_it_allows(self) -> DecisionBody:
        if self.decision == "approve" and not self.digest:
            raise ValueError("an approval needs the digest of the arguments that it covers")
        return self
