"""Names for plain values, so that a signature says which id it wants."""

from __future__ import annotations

from typing import NewType, TypeAlias

from pydantic import JsonValue

Json: TypeAlias = JsonValue
"""A value that JSON can hold, and nothing else."""

JsonObject: TypeAlias = dict[str, JsonValue]

SubjectId = NewType("SubjectId", str)
"""What a log belongs to: base32 of a hash, 26 characters of `a-z2-7`."""

RunId = NewType("RunId", str)
"""`{subject}-{n}`, n being the number of the commit that accepted the run."""

DriverId = NewType("DriverId", str)
"""Random per drive: names who may append to a run at an epoch."""

Slot = NewType("Slot", str)
"""A replica's name that survives its restart: the pod's name, or app-id and port."""
