"""What an agent that handles steps keeps: state, memory and receipts, changed by one write for each handled step.

State, the receipt and new memory entries are one document, so a handler's work is recorded whole or not at all.
Receipts and memory entries move to keys of their own with a later write, so the document stays small and no receipt
is ever lost. A long output is written to a key of its own first, and the receipt in the document names it: until then
nobody finds it, so an output never counts without the state that was changed with it. The output of an attempt that
lost a race, or was cut before the document was written, is left behind.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import orjson
from pydantic import JsonValue, TypeAdapter

from perdure.errors import Broken
from perdure.sidecar.ports import StateStore
from perdure.state.document import Document, Stored

RECEIPTS_HERE = 16
"""Receipts in the document itself: some tens of concurrent runs find theirs with the one read they need anyway."""

BEGUN_HERE = 32
"""Begun steps in the document: more than run at once as a rule, so those that leave it are doubts nobody settled."""

BYTES_HERE = 64 * 1024
"""All outputs in the document: it is written with every step, and a sidecar refuses messages of 4 MiB."""

OUTPUT_HERE = 16 * 1024
"""Bytes of an output in the document; a longer one costs a write of its own, which is less than carrying it along."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """`begun`: a `once` handler was to start, in `life` of `slot`. `done`: it answered `output` (JSON text).

    `apart` names the key of an output that is not here.
    """

    status: Literal["begun", "done"]
    digest: str
    output: str = ""
    fence: int = 0
    slot: str = ""
    life: str = ""
    apart: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """A memory entry in a key of its own; a higher version is newer."""

    version: int
    value: JsonValue


@dataclass(frozen=True, slots=True)
class Record:
    """The document. `version` grows with each write; `fresh` are the memory entries of the newest write."""

    version: int = 0
    state: dict[str, JsonValue] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    fresh: dict[str, JsonValue] = field(default_factory=dict)


Change = Callable[[dict[str, Any]], dict[str, Any]]
"""From one state to the next; pure, may be asked again on a newer state."""

_RECORD: TypeAdapter[Record] = TypeAdapter(Record)
_RECEIPT: TypeAdapter[Receipt | None] = TypeAdapter(Receipt | None)
_KEPT: TypeAdapter[Kept | None] = TypeAdapter(Kept | None)


class RecordBook:
    """The record of one agent in a store."""

    def __init__(self, store: StateStore, agent: str, prefix: str = "") -> None:
        self._store = store
        self._root = f"{prefix}agents/{agent}"
        self._record: Document[Record] = Document(store, f"{self._root}/record", _RECORD, Record())

    async def load(self) -> Stored[Record]:
        """The newest record."""
        return await self._record.load()

    async def receipt(self, record: Record, key: str) -> Receipt | None:
        """The receipt of the step with `key`, wherever it is kept."""
        found = record.receipts.get(key)
        if found is None:
            found = (await self._receipt_of(key).load()).value
        if found is None or not found.apart:
            return found
        return replace(found, output=await self._output(found.apart), apart="")

    async def memory(self, record: Record, name: str) -> Kept | None:
        """The memory entry `name`, wherever it is kept."""
        if name in record.fresh:
            return Kept(record.version, record.fresh[name])
        return (await self._memory_of(name).load()).value

    async def save(
        self,
        over: Stored[Record],
        key: str,
        receipt: Receipt | None,
        *,
        state: Mapping[str, Any] | None = None,
        fresh: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace exactly the version `over`, all in one write; `receipt` None removes the one under `key`.

        Raises: Conflict when somebody was faster; Transient when the outcome is unknown.
        """
        before = over.value
        await self._move(before)
        receipts = {name: one for name, one in before.receipts.items() if name != key}
        receipts = await self._spill_begun(await self._spill(receipts))
        if receipt is not None:
            receipts[key] = await self._lightened(key, receipt)
        kept = before.state if state is None else dict(state)
        after = replace(before, version=before.version + 1, state=kept, receipts=receipts, fresh=dict(fresh or {}))
        await self._record.save(after, over)
        if receipt is None and key not in before.receipts:
            await self._receipt_of(key).update(_without_begun)

    async def _move(self, before: Record) -> None:
        """Give the memory entries of the former write keys of their own, before the next write drops them."""
        for name, value in before.fresh.items():
            await self._memory_of(name).update(partial(_newer, Kept(before.version, value)))

    async def _lightened(self, key: str, receipt: Receipt) -> Receipt:
        """The receipt as the document holds it; a long output is in its own key by then, under the name of its content.

        Attempts with different answers may race: each writes another key, and the document names the one that won.
        """
        if _length(receipt) <= OUTPUT_HERE:
            return receipt
        data = receipt.output.encode()
        apart = f"{self._root}/outputs/{key}.{hashlib.blake2b(data, digest_size=16).hexdigest()}"
        await self._store.create(apart, data)
        return replace(receipt, output="", apart=apart)

    async def _output(self, apart: str) -> str:
        item = await self._store.get(apart)
        if item is None:
            message = f"the output {apart!r} of an answered step is gone; restore it, or begin a new run"
            raise Broken("output_missing", message)
        return item.value.decode()

    async def _spill(self, receipts: dict[str, Receipt]) -> dict[str, Receipt]:
        """The newest half of the receipts once there are too many or they are too long; the others have own keys then.

        What is left here is at most half of what may be here, so that most writes move nothing.
        """
        done = [name for name, one in receipts.items() if one.status == "done"]
        length = sum(_length(receipts[name]) for name in done)
        if len(done) < RECEIPTS_HERE and length <= BYTES_HERE:
            return receipts
        moved = set[str]()
        for name in done:
            if len(done) - len(moved) <= RECEIPTS_HERE // 2 and length <= BYTES_HERE // 2:
                break
            await self._receipt_of(name).update(partial(_put, receipts[name]))
            moved.add(name)
            length -= _length(receipts[name])
        return {name: one for name, one in receipts.items() if name not in moved}

    async def _spill_begun(self, receipts: dict[str, Receipt]) -> dict[str, Receipt]:
        """The same for those that were begun. What becomes of one later is said in the document, which is read first.

        One that another replica removes at this moment stays in its own key: a doubt too many, never a call too many.
        """
        begun = [name for name, one in receipts.items() if one.status == "begun"]
        if len(begun) < BEGUN_HERE:
            return receipts
        old = begun[: BEGUN_HERE // 2]
        for name in old:
            await self._receipt_of(name).update(partial(_put, receipts[name]))
        return {name: one for name, one in receipts.items() if name not in old}

    def _receipt_of(self, key: str) -> Document[Receipt | None]:
        return Document(self._store, f"{self._root}/receipts/{key}", _RECEIPT, None)

    def _memory_of(self, name: str) -> Document[Kept | None]:
        return Document(self._store, f"{self._root}/memory/{name}", _KEPT, None)


def _newer(new: Kept, old: Kept | None) -> Kept | None:
    return old if old is not None and old.version >= new.version else new


def _length(receipt: Receipt) -> int:
    """Bytes of the output as text within JSON."""
    return len(orjson.dumps(receipt.output))


def _put(new: Receipt, old: Receipt | None) -> Receipt | None:
    """An answer is final; who moved the beginning was late."""
    return old if old is not None and old.status == "done" else new


def _without_begun(old: Receipt | None) -> Receipt | None:
    return None if old is not None and old.status == "begun" else old
