"""Pipelines: steps that depend on each other, each finished step exactly once."""

from typing import Any

import pytest

from perdure import App, Conflict, Failed, Pipeline, StepContext

brew = Pipeline("brew")


@brew.step(effect="idempotent")
async def grind(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    return {"grams": message["data"]["cups"] * 12}


@brew.step(effect="read")
async def boil(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    return {"degrees": 93}


@brew.step(depends_on=["grind", "boil"])
async def pour(message: dict[str, Any], context: StepContext) -> dict[str, Any]:
    before = message["dependency_messages"]
    grams, degrees = before["grind"]["data"]["grams"], before["boil"]["data"]["degrees"]
    poured = (await context.get_state()).get("poured", 0) + 1
    await context.update_state(poured=poured)  # kept with the output, by one write, or not at all
    return {"coffee": f"{grams} g at {degrees} degrees", "number": poured}


app = App(pipelines=[brew])


async def test_a_run_gives_the_output_of_each_step() -> None:
    """Steps that do not depend on each other run side by side; a step gets what those before it gave."""
    async with app.local() as runtime:
        run = await runtime.start_pipeline("brew", {"cups": 2})
        outputs = await run.outputs()
        assert outputs is not None
        assert outputs["pour"] == {"coffee": "24 g at 93 degrees", "number": 1}


async def test_the_same_key_means_the_same_run() -> None:
    """As with turns: asking again joins; another input under the same key is a mistake."""
    async with app.local() as runtime:
        first = await runtime.start_pipeline("brew", {"cups": 2}, key="monday")
        again = await runtime.start_pipeline("brew", {"cups": 2}, key="monday")
        assert (again.id, again.joined) == (first.id, True)
        with pytest.raises(Conflict):
            await runtime.start_pipeline("brew", {"cups": 3}, key="monday")


async def test_a_step_that_fails_for_good_fails_the_run() -> None:
    """`max_retries` repetitions, then the run ends and says which step it was."""
    burnt = Pipeline("burnt")

    @burnt.step(effect="read", max_retries=1, retry_delay=0)
    async def roast(message: dict[str, Any], context: StepContext) -> None:
        raise ValueError("too dark")

    async with App(pipelines=[burnt]).local() as runtime:
        run = await runtime.start_pipeline("burnt")
        with pytest.raises(Failed, match="roast"):
            await run.outputs()
