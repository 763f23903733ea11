"""A first agent: a name, instructions, a model. `app.local()` runs it in this process, without Dapr."""

from perdure import App, DurableAgent

# A scripted model answers from a list: no key, no network. In production: `component:chat` or `openai:gpt-5`.
greeter = DurableAgent("greeter", instructions="Be brief.", model="scripted:Hello! You said: {user}")
app = App(agents=[greeter])


async def test_an_agent_answers() -> None:
    """Asking begins a turn; its answer is what the model said."""
    async with app.local() as runtime:
        turn = await runtime.ask("greeter", "Good morning")
        assert await turn.answer() == "Hello! You said: Good morning"


async def test_a_turn_tells_what_it_used() -> None:
    """A turn has an id, a status, its answer, the tokens it used and the number of model calls."""
    async with app.local() as runtime:
        turn = await runtime.ask("greeter", "Good morning")
        await turn.answer()
        shown = turn.show()
        assert shown["status"] == "done"
        assert shown["steps"] == 1
        assert shown["usage"] == {"input_tokens": 6, "output_tokens": 8}
        assert (await runtime.turn(turn.id)).show() == shown
