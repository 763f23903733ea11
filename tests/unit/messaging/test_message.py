"""The shape of what a handler receives."""

from __future__ import annotations

from perdure.messaging.message import Arrival, joined


def test_the_last_message_stands_in_front_and_all_of_them_are_there_by_source() -> None:
    first = Arrival("count", '{"n":42}', "r.1", "2026-01-01T00:00:01Z")
    last = Arrival("name", '{"name":"test"}', "r.2", "2026-01-01T00:00:02Z")
    message = joined([first, last])
    assert message["source"] == "name"
    assert message["data"] == {"name": "test"}
    assert message["dependency_messages"] == {"count": first.shown(), "name": last.shown()}
    assert first.shown() == {
        "source": "count",
        "data": {"n": 42},
        "id": "r.1",
        "received_at": "2026-01-01T00:00:01Z",
    }


def test_a_message_from_outside_is_no_dependency() -> None:
    assert joined([Arrival("", "{}", "1", "now")])["dependency_messages"] == {}
