"""The head hint: which segment is the newest, and whether the subject is erased."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from perdure.errors import Broken, Conflict, NotFound
from perdure.log.keys import Keys
from perdure.sidecar.ports import Item, StateStore


@dataclass(frozen=True, slots=True)
class Head:
    """`first` and `last` bound the newest segment (0: none yet); commits up to `retired` are marks."""

    first: int = 0
    last: int = 0
    retired: int = 0
    erased: bool = False
    gone: bool = False
    """Erasure is complete, nothing is left to do."""


class Heads:
    """Reads and moves one subject's hint. It may lag behind, but `erased` never goes away."""

    def __init__(self, store: StateStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def read(self) -> Head:
        """The hint as stored. Raises: Broken (code `head_unreadable`)."""
        return self.parse(await self._store.get(self._keys.head))

    def parse(self, item: Item | None) -> Head:
        """The hint in a stored item; one that says nothing when there is none."""
        if item is None:
            return Head()
        try:
            document: dict[str, Any] = orjson.loads(item.value)
            return Head(document["f"], document["l"], document["r"], document["x"] > 0, document["x"] > 1)
        except (ValueError, KeyError, TypeError) as error:
            subject = self._keys.subject
            raise Broken(
                "head_unreadable", f"the head of subject {subject} is not a head; call a maintainer", subject=subject
            ) from error

    def living(self, item: Item | None) -> Head:
        """The hint in a stored item. Raises: NotFound (code `subject_erased`)."""
        head = self.parse(item)
        if head.erased:
            subject = self._keys.subject
            raise NotFound("subject_erased", f"subject {subject} was erased; start a new one", subject=subject)
        return head

    async def move(self, *, first: int = 0, last: int = 0, retired: int = 0) -> None:
        """Take the hint forward; what is behind it changes nothing. Raises: NotFound (code `subject_erased`)."""

        def change(head: Head) -> Head:
            if last > head.last:
                head = replace(head, first=first, last=last)
            return replace(head, retired=max(head.retired, retired))

        await self._change(change, allow_erased=False)

    async def erase(self, *, gone: bool) -> Head:
        """Say for ever that the subject is erased; the hint as it was before."""
        return await self._change(lambda head: replace(head, erased=True, gone=head.gone or gone), allow_erased=True)

    async def _change(self, change: Any, *, allow_erased: bool) -> Head:
        while True:
            item = await self._store.get(self._keys.head)
            head = self.parse(item) if allow_erased else self.living(item)
            changed: Head = change(head)
            if changed == head:
                return head
            try:
                # Only over what was read: a late write must not bring an erased subject back.
                if item is None:
                    await self._store.create(self._keys.head, _encode(changed))
                else:
                    await self._store.put(self._keys.head, _encode(changed), etag=item.etag)
            except Conflict:
                continue
            return head


def _encode(head: Head) -> bytes:
    state = 2 if head.gone else int(head.erased)
    return orjson.dumps({"f": head.first, "l": head.last, "r": head.retired, "x": state})
