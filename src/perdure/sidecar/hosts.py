"""What every engine asks of an instance id."""

from __future__ import annotations

import re

from perdure.errors import Invalid

INSTANCE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def require_instance_id(instance: str) -> None:
    """Raises: Invalid (code `instance_id`) unless `instance` is 1 to 64 of letters, digits, `_` and `-`."""
    if INSTANCE_ID.fullmatch(instance) is None:
        raise Invalid("instance_id", f"instance id {instance!r} is not 1 to 64 letters, digits, '_' or '-'")
