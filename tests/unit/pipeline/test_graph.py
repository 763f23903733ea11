"""Graphs that cannot be run are refused, with the path named."""

from __future__ import annotations

import pytest

from perdure.errors import Invalid
from perdure.pipeline.pipeline import Pipeline, StepAgent


async def nothing(message: object, context: object) -> None:
    return None


def test_an_unknown_dependency_is_refused_with_the_closest_name() -> None:
    pipeline = Pipeline("p")
    pipeline.step(name="collect")(nothing)
    pipeline.step(name="process", depends_on=["colect"])(nothing)
    with pytest.raises(Invalid) as told:
        _ = pipeline.graph
    assert told.value.code == "dependency_unknown"
    assert "did you mean 'collect'?" in told.value.message
    assert told.value.details["path"] == "process -> colect"


def test_a_step_that_depends_on_itself_is_refused_where_it_is_declared() -> None:
    with pytest.raises(Invalid) as told:
        Pipeline("p").step(name="a", depends_on=["a"])(nothing)
    assert told.value.code == "dependency_self"


def test_a_cycle_is_refused_with_its_path() -> None:
    pipeline = Pipeline("p")
    pipeline.step(name="entry")(nothing)
    for name, needed in (("a", "c"), ("b", "a"), ("c", "b")):
        pipeline.step(name=name, depends_on=["entry", needed])(nothing)
    with pytest.raises(Invalid) as told:
        _ = pipeline.graph
    assert told.value.code == "dependency_cycle"
    assert told.value.details["path"] == "a -> c -> b -> a"


def test_a_diamond_is_no_cycle() -> None:
    pipeline = Pipeline("p")
    pipeline.step(name="top")(nothing)
    pipeline.step(name="left", depends_on=["top"])(nothing)
    pipeline.step(name="right", depends_on=["top"])(nothing)
    pipeline.step(name="bottom", depends_on=["left", "right"])(nothing)
    assert [spec.name for spec in pipeline.graph] == ["top", "left", "right", "bottom"]


def test_two_steps_of_one_name_are_refused() -> None:
    pipeline = Pipeline("p")
    pipeline.step(name="a")(nothing)
    with pytest.raises(Invalid) as told:
        pipeline.remote("a", "elsewhere")
    assert told.value.code == "step_duplicate"


def test_an_empty_pipeline_is_refused() -> None:
    with pytest.raises(Invalid, match="has no steps"):
        _ = Pipeline("p").graph


@pytest.mark.parametrize("name", ["", "a b", "-x", "ü", "a/b", "x" * 65])
def test_names_that_cannot_stand_in_a_path_are_refused(name: str) -> None:
    with pytest.raises(Invalid) as told:
        StepAgent(name)
    assert told.value.code == "name_malformed"


def test_a_dependency_given_as_text_is_refused_instead_of_being_read_letter_by_letter() -> None:
    with pytest.raises(Invalid, match="write \\['collect'\\]"):
        Pipeline("p").step(name="process", depends_on="collect")(nothing)
