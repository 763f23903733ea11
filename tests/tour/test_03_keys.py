"""Keys: the same key means the same work, however often it is asked for."""

import pytest

from perdure import App, Conflict, DurableAgent, tool

paid: list[int] = []


@tool
def pay(amount: int) -> str:
    """Take money."""
    paid.append(amount)
    return "paid"


app = App(agents=[DurableAgent("cashier", model='scripted:@pay {"amount": 5} | Thanks.', tools=[pay])])


async def test_asking_again_with_the_same_key_joins_the_turn() -> None:
    """A client that is not sure whether its request arrived simply repeats it."""
    paid.clear()
    async with app.local() as runtime:
        first = await runtime.ask("cashier", "Five, please", key="order-42")
        again = await runtime.ask("cashier", "Five, please", key="order-42")
        assert (again.id, again.joined) == (first.id, True)
        assert await first.answer() == await again.answer() == "Thanks."
        assert paid == [5]


async def test_a_key_cannot_be_used_for_another_text() -> None:
    """That would be a mistake of the client, and is told as one."""
    async with app.local() as runtime:
        await runtime.ask("cashier", "Five, please", key="order-42")
        with pytest.raises(Conflict) as refused:
            await runtime.ask("cashier", "Six, please", key="order-42")
        assert refused.value.code == "key_reused"
