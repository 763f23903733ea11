"""Sessions: turns that follow one another and share their messages."""

from perdure import App, DurableAgent, ModelRequest


def memory_of(request: ModelRequest) -> str:
    return " / ".join(message.text for message in request.messages if message.role == "user")


app = App(agents=[DurableAgent("listener", model=memory_of)])


async def test_the_model_sees_what_was_said_before() -> None:
    """Turns of the same session share a conversation."""
    async with app.local() as runtime:
        await (await runtime.ask("listener", "I am Ann", session="s-1")).answer()
        second = await runtime.ask("listener", "Who am I?", session="s-1")
        assert await second.answer() == "I am Ann / Who am I?"


async def test_another_session_knows_nothing_of_it() -> None:
    """Without a session, each turn has one of its own."""
    async with app.local() as runtime:
        await (await runtime.ask("listener", "I am Ann", session="s-1")).answer()
        assert await (await runtime.ask("listener", "Who am I?", session="s-2")).answer() == "Who am I?"
        assert await (await runtime.ask("listener", "Who am I?")).answer() == "Who am I?"


async def test_a_session_can_be_read_and_erased() -> None:
    """It has all turns and all messages, also those that the model is no longer shown."""
    async with app.local() as runtime:
        turn = await runtime.ask("listener", "I am Ann", session="s-1")
        await turn.answer()
        session = await runtime.session("listener", "s-1")
        assert [shown["id"] for shown in session["turns"]] == [turn.id]
        assert [(message["role"], message["text"]) for message in session["messages"]] == [
            ("user", "I am Ann"),
            ("assistant", "I am Ann"),
        ]
        await runtime.erase("listener", "s-1")
        assert await (await runtime.ask("listener", "Who am I?", session="s-2")).answer() == "Who am I?"


async def test_the_model_is_shown_the_newest_whole_exchanges() -> None:
    """`context_messages` bounds what is sent; an exchange is shown whole or not at all."""
    forgetful = App(agents=[DurableAgent("listener", model=memory_of, context_messages=3)])
    async with forgetful.local() as runtime:
        for text in ("one", "two", "three"):
            answer = await (await runtime.ask("listener", text, session="s-1")).answer()
        assert answer == "two / three"
