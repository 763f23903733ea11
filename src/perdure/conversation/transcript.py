"""What makes a transcript acceptable to every model: each call is answered, once, right after it was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perdure.conversation.message import Message, error_text
from perdure.sidecar.ports import ChatCall

NOT_RUN = "not_run"


def valid(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The same conversation with every call answered.

    A call without a result gets an error of type `not_run`; a result that answers no call, or answers one
    again, is left out, because models refuse it.
    """
    return tuple(_repaired(messages))


def exchanges(messages: Sequence[Message]) -> tuple[tuple[Message, ...], ...]:
    """The messages by turn: what a user said with all that followed from it."""
    found: list[list[Message]] = []
    for message in messages:
        if found and found[-1][0].run == message.run:
            found[-1].append(message)
        else:
            found.append([message])
    return tuple(tuple(group) for group in found)


def _repaired(messages: Sequence[Message]) -> Iterator[Message]:
    open_calls: dict[str, ChatCall] = {}
    caller: Message | None = None
    for message in messages:
        if message.role == "tool":
            if open_calls.pop(message.call_id, None) is not None:
                yield message
            continue
        if open_calls:
            yield from _closing(caller, open_calls)
        open_calls = {call.id: call for call in message.calls} if message.calls else {}
        caller = message
        yield message
    yield from _closing(caller, open_calls)


def _closing(caller: Message | None, calls: dict[str, ChatCall]) -> Iterator[Message]:
    if caller is None:
        return
    for call in calls.values():
        text = error_text(NOT_RUN, "this call was not run")
        yield Message("tool", text, call_id=call.id, name=call.name, at=caller.at, run=caller.run)
