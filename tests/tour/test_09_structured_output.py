"""Structured output: an answer of a given shape. Any type that pydantic knows will do."""

from pydantic import BaseModel

from perdure import App, DurableAgent, ModelRequest


class City(BaseModel):
    name: str
    people: int


async def test_the_answer_is_a_value_of_that_shape() -> None:
    """`answer()` gives JSON data; the text the model wrote is in `show()`."""
    model = 'scripted:{"name": "Oslo", "people": 717710}'
    async with App(agents=[DurableAgent("atlas", model=model, output_type=City)]).local() as runtime:
        turn = await runtime.ask("atlas", "Oslo?")
        assert await turn.answer() == {"name": "Oslo", "people": 717710}
        assert City.model_validate(turn.show()["output"]).people == 717710


async def test_an_answer_that_does_not_fit_is_told_to_the_model() -> None:
    """It learns what was wrong and answers again; that counts as a step."""

    def model(request: ModelRequest) -> str:
        corrected = "people" in request.messages[-1].text
        return '{"name": "Oslo", "people": 717710}' if corrected else '{"name": "Oslo"}'

    async with App(agents=[DurableAgent("atlas", model=model, output_type=City)]).local() as runtime:
        turn = await runtime.ask("atlas", "Oslo?")
        assert await turn.answer() == {"name": "Oslo", "people": 717710}
        assert turn.show()["steps"] == 2


async def test_plain_types_work_too() -> None:
    """A list of numbers, a date, a union."""
    model = 'scripted:{"value": [1, 2, 3]}'
    async with App(agents=[DurableAgent("counter", model=model, output_type=list[int])]).local() as runtime:
        assert await (await runtime.ask("counter", "Count")).answer() == [1, 2, 3]
