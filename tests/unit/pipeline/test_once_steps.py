"""A `once` step happens at most once, however its call ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure import App, Failed, Pipeline, StepContext


async def error_of(pipeline: Pipeline) -> dict[str, Any]:
    async with App(pipelines=[pipeline]).local() as runtime:
        run = await runtime.start_pipeline(pipeline.name, {}, key="k")
        with pytest.raises(Failed):
            await run.outputs()
        shown: dict[str, Any] = run.show()["steps"][0]["error"]
        return shown


@pytest.mark.parametrize(("effect", "calls"), [("once", 1), ("idempotent", 3), ("read", 3)])
async def test_a_step_past_its_time_limit_is_called_again_only_if_that_does_no_harm(effect: str, calls: int) -> None:
    begun = 0
    pipeline = Pipeline("p")

    @pipeline.step(effect=effect, max_retries=2, retry_delay=0, timeout_s=0.02)
    async def pay(message: dict[str, Any], context: StepContext) -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    error = await error_of(pipeline)
    assert begun == calls
    assert error["code"] == ("outcome_unknown" if effect == "once" else "step_timed_out")
    assert "did not answer within 0.02 s" in error["message"]


@pytest.mark.parametrize(
    ("effect", "retries", "calls"), [("once", {}, 1), ("once", {"max_retries": 2}, 3), ("read", {}, 4)]
)
async def test_a_once_step_that_raises_is_called_again_only_if_its_author_says_how_often(
    effect: str, retries: dict[str, int], calls: int
) -> None:
    begun = 0
    pipeline = Pipeline("p")

    @pipeline.step(effect=effect, retry_delay=0, **retries)
    async def pay(message: dict[str, Any], context: StepContext) -> None:
        nonlocal begun
        begun += 1
        raise OSError("connection reset after the request was sent")

    error = await error_of(pipeline)
    assert begun == calls
    assert error["code"] == "step_failed"


@pytest.mark.parametrize(("effect", "retries"), [("once", 0), ("idempotent", 3), ("read", 3)])
def test_a_step_at_another_app_has_the_same_default(effect: str, retries: int) -> None:
    pipeline = Pipeline("p")
    pipeline.remote("there", "app", effect=effect)
    assert pipeline.graph[0].max_retries == retries
