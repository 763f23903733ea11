"""`app.local()`: the same agents in this process, and found again in their folder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perdure import App, DurableAgent, Pipeline, Settings, tool
from perdure.errors import Conflict, Failed, Invalid, NotFound
from perdure.llm.model import ModelRequest


@tool(effect="once", approval=True)
async def send_money(amount: int) -> str:
    """Send money."""
    return f"sent {amount}"


def app(**more: Any) -> App:
    """One agent that asks before it pays and one that echoes."""

    def echo(request: ModelRequest) -> str:
        return f"heard: {request.messages[-1].text}"

    banker = DurableAgent("banker", model='scripted:@send_money {"amount": 5} | {result}', tools=[send_money])
    return App(agents=[banker, DurableAgent("parrot", model=echo)], settings=Settings(), **more)


async def test_asking_again_with_the_key_joins_the_turn() -> None:
    async with app().local() as runtime:
        first = await runtime.ask("parrot", "hi", session="s", key="req-42")
        again = await runtime.ask("parrot", "hi", session="s", key="req-42")
        assert (first.id, first.joined, again.joined) == (again.id, False, True)
        assert await again.answer() == "heard: hi"
        with pytest.raises(Conflict, match="another text"):
            await runtime.ask("parrot", "ho", session="s", key="req-42")


async def test_a_turn_that_needs_a_person_gives_control_back() -> None:
    async with app().local() as runtime:
        turn = await runtime.ask("banker", "pay")
        assert await turn.answer() is None
        assert turn.status == "waiting"
        (asked,) = turn.approvals()
        assert (asked.name, asked.arguments) == ("send_money", '{"amount":5}')
        with pytest.raises(NotFound, match=asked.call):
            await turn.approve("1.1.1")
        await turn.approve(asked.call)
        assert await turn.answer() == "sent 5"
        assert turn.approvals() == ()


async def test_denying_tells_the_model_why() -> None:
    async with app().local() as runtime:
        turn = await runtime.ask("banker", "pay")
        await turn.answer()
        await turn.deny(turn.approvals()[0], "too much")
        assert "too much" in str(await turn.answer())


async def test_a_cancelled_turn_raises_what_became_of_it() -> None:
    async with app().local() as runtime:
        turn = await runtime.ask("banker", "pay")
        await turn.answer()
        await turn.cancel("changed my mind")
        with pytest.raises(Failed):
            await turn.answer()
        assert turn.status == "cancelled"


async def test_a_failed_turn_raises_its_own_error() -> None:
    lonely = DurableAgent("lonely", model="scripted:@nobody {}", max_steps=1)
    async with App(agents=[lonely], settings=Settings()).local() as runtime:
        turn = await runtime.ask("lonely", "hi")
        with pytest.raises(Failed) as raised:
            await turn.answer()
        assert raised.value.code == turn.show()["error"]["code"]  # type: ignore[index,call-overload]


async def test_pausing_holds_a_turn_and_resuming_lets_it_go_on() -> None:
    async with app().local() as runtime:
        turn = await runtime.ask("banker", "pay")
        await turn.answer()
        await turn.pause()
        assert await turn.answer() is None
        assert turn.status == "paused"
        await turn.approve(turn.approvals()[0])
        await turn.resume()
        assert await turn.answer() == "sent 5"


async def test_events_tell_the_whole_turn_and_end_with_it() -> None:
    async with app().local() as runtime:
        turn = await runtime.ask("parrot", "hi")
        told = [(n, i, event.t) async for n, i, event in turn.events()]
        assert [kind for _, _, kind in told][0::2] == ["accepted", "closed"]
        rest = [(n, i, event.t) async for n, i, event in turn.events(after=told[0][:2])]
        assert rest == told[1:]


async def test_a_second_runtime_on_the_folder_finds_everything_again(tmp_path: Path) -> None:
    async with app().local(tmp_path) as runtime:
        done = await runtime.ask("parrot", "hi", session="s", key="k")
        assert await done.answer() == "heard: hi"
        waiting = await runtime.ask("banker", "pay", session="s")
        assert await waiting.answer() is None
    async with app().local(tmp_path) as runtime:
        assert (await runtime.ask("parrot", "hi", session="s", key="k")).id == done.id
        assert [turn["answer"] for turn in (await runtime.session("parrot", "s"))["turns"]] == ["heard: hi"]  # type: ignore[index,call-overload,union-attr]
        again = await runtime.turn(waiting.id)
        assert again.status == "waiting"
        await again.approve(again.approvals()[0])
        assert await again.answer() == "sent 5"


async def test_a_turn_that_was_going_on_at_the_end_goes_on_in_the_next_life(tmp_path: Path) -> None:
    asked = asyncio.Event()
    go = asyncio.Event()

    async def slow(request: ModelRequest) -> str:
        asked.set()
        await go.wait()
        return "at last"

    thinker = App(
        agents=[DurableAgent("thinker", model=slow)],
        settings=Settings.model_validate({"run": {"shutdown_s": 0.05}}),
    )
    async with thinker.local(tmp_path) as runtime:
        turn = await runtime.ask("thinker", "think")
        waiting = asyncio.create_task(turn.answer())
        await asked.wait()
    with pytest.raises(Conflict, match="closed"):
        await waiting
    go.set()
    async with thinker.local(tmp_path) as runtime:
        assert await (await runtime.turn(turn.id)).answer() == "at last"


KILLED = """
import asyncio, os, sys
from perdure import App, DurableAgent
async def slow(request):
    print("asked", flush=True)
    if not os.path.exists(sys.argv[1] + "/go"):
        await asyncio.sleep(3600)
    return "at last"
app = App(agents=[DurableAgent("thinker", model=slow)])
async def main():
    async with app.local(sys.argv[1]) as runtime:
        turn = await runtime.ask("thinker", "think", key="k")
        print(await turn.answer(), flush=True)
asyncio.run(main())
"""


def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "asked\n"
        first.kill()
    (tmp_path / "go").touch()
    second = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert second.stdout.splitlines() == ["asked", "at last"]


async def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    async with app().local(tmp_path):
        with pytest.raises(Conflict, match="open in another process"):
            async with app().local(tmp_path):
                pass


async def test_a_pipeline_runs_once_for_its_key() -> None:
    sums = Pipeline("sums")

    @sums.step(effect="idempotent")
    async def one(message: Any, context: Any) -> Any:
        return {"n": 1}

    @sums.step(effect="idempotent", depends_on=["one"])
    async def two(message: Any, context: Any) -> Any:
        return {"n": message["data"]["n"] + 1}

    async with App(pipelines=[sums], settings=Settings()).local() as runtime:
        run = await runtime.start_pipeline("sums", {"x": 1}, key="k")
        again = await runtime.start_pipeline("sums", {"x": 1}, key="k")
        assert run.id == again.id
        assert await run.outputs() == {"one": {"n": 1}, "two": {"n": 2}}
        with pytest.raises(Conflict):
            await runtime.start_pipeline("sums", {"x": 2}, key="k")
        with pytest.raises(NotFound, match="sums"):
            await runtime.start_pipeline("sum")


async def test_two_agents_of_one_name_are_refused() -> None:
    twice = App(agents=[DurableAgent("a", model="scripted:hi"), DurableAgent("a", model="scripted:ho")])
    with pytest.raises(Invalid, match="two agents are called a"):
        twice.local()


async def test_agents_reach_their_own_service_by_invocation() -> None:
    async with app().local() as runtime:
        answer = await runtime.service.doors.invoker.call("perdure", "GET", "/card")
        assert answer.status == 200
