"""Restart: with a folder, everything that was accepted is still there in the next life of the process."""

from pathlib import Path

from perdure import App, DurableAgent, tool

paid: list[int] = []


@tool(approval=True)
def pay(amount: int) -> str:
    """Take money."""
    paid.append(amount)
    return f"{amount} paid"


def app() -> App:
    return App(agents=[DurableAgent("cashier", model='scripted:@pay {"amount": 5} | {result}', tools=[pay])])


async def test_a_finished_turn_is_found_again(tmp_path: Path) -> None:
    """The same key gives the same answer, and nothing is done twice."""
    paid.clear()
    async with app().local(tmp_path) as runtime:
        turn = await runtime.ask("cashier", "Five", key="order-1")
        await turn.answer()
        await turn.approve(turn.approvals()[0])
        assert await turn.answer() == "5 paid"
    async with app().local(tmp_path) as runtime:
        again = await runtime.ask("cashier", "Five", key="order-1")
        assert (again.joined, await again.answer()) == (True, "5 paid")
    assert paid == [5]


async def test_a_waiting_turn_goes_on_in_the_next_life(tmp_path: Path) -> None:
    """It waited in the folder, not in memory."""
    paid.clear()
    async with app().local(tmp_path) as runtime:
        turn = await runtime.ask("cashier", "Five")
        await turn.answer()
        assert turn.status == "waiting"
    async with app().local(tmp_path) as runtime:
        same = await runtime.turn(turn.id)
        await same.approve(same.approvals()[0])
        assert await same.answer() == "5 paid"
    assert paid == [5]
