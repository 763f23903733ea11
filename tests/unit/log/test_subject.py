"""Subjects and runs have computed names."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid
from perdure.log.keys import Keys
from perdure.log.subject import parse_run_id, run_id, subject_id

PARTS = st.tuples(*[st.text(alphabet="ab\x00|/é", max_size=3)] * 4)


@given(PARTS, PARTS)
def test_two_subjects_share_an_id_only_if_all_their_parts_are_equal(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    """Nothing collides by running parts together."""
    assert (subject_id(*one) == subject_id(*other)) == (one == other)
    assert re.fullmatch("[a-z2-7]{26}", subject_id(*one))


def test_a_subject_id_is_the_same_for_ever() -> None:
    """Logs are found by it, so no release may change it."""
    assert subject_id("default", "tenant", "weather", "s-1") == "clzcsolx2wbaofkzgfb624wioy"


def test_a_subject_of_broken_text_is_refused() -> None:
    """A lone surrogate has no bytes to hash."""
    with pytest.raises(Invalid) as caught:
        subject_id("n", "p", "a", "\ud800")
    assert caught.value.code == "subject_malformed"


def test_a_run_id_says_subject_and_number() -> None:
    """What `run_id` made, `parse_run_id` reads."""
    subject = subject_id("n", "p", "a", "k")
    assert parse_run_id(run_id(subject, 17)) == (subject, 17)


@pytest.mark.parametrize(
    "text", ["", "x", "a" * 26, "a" * 26 + "-0", "a" * 26 + "-1\n", "A" * 26 + "-1", "a" * 26 + "-١"]
)
def test_a_malformed_run_id_is_refused(text: str) -> None:
    """Nothing that `run_id` would not make is read."""
    with pytest.raises(Invalid) as caught:
        parse_run_id(text)
    assert caught.value.code == "run_id_malformed"


def test_keys_sort_in_the_order_of_the_log() -> None:
    """Numbers are padded, parts of one blob are numbered, a single part is not."""
    keys = Keys(subject_id("n", "p", "a", "k"), "dev/")
    assert keys.commit(9) < keys.commit(10)
    assert keys.commit(1) == f"dev/log/{keys.subject}/0000000001"
    assert keys.segment(65) == f"dev/seg/{keys.subject}/0000000065"
    assert keys.head == f"dev/head/{keys.subject}"
    assert keys.blob("d", 1) == [f"dev/blob/{keys.subject}/d"]
    assert keys.blob("d", 2) == [f"dev/blob/{keys.subject}/d.0", f"dev/blob/{keys.subject}/d.1"]
