"""Compare-and-set on one JSON value: read, change, write if nobody was faster, else again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from perdure.errors import Conflict
from perdure.sidecar.ports import StateStore


async def read_json(store: StateStore, key: str, default: Any) -> Any:
    """The value under `key`, or `default`."""
    item = await store.get(key)
    return default if item is None else orjson.loads(item.value)


async def change_json(store: StateStore, key: str, default: Any, change: Callable[[Any], Any]) -> Any:
    """Replace the value by `change(value)`, a pure function that is asked again when somebody was faster.

    Returns what is stored now. Equal to before: nothing is written. Raises: Transient when the outcome is unknown.
    """
    while True:
        item = await store.get(key)
        after = change(default if item is None else orjson.loads(item.value))
        data = orjson.dumps(after, option=orjson.OPT_NON_STR_KEYS)
        if item is not None and data == item.value:
            return after
        try:
            if item is None:
                await store.create(key, data)
            else:
                await store.put(key, data, etag=item.etag)
        except Conflict:
            continue
        return after
