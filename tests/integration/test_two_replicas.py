"""Two replicas of one app over the same stores: one driver a run, the other carries on, who was frozen adds nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from landscape import Stubborn, complaints, nothing_left, run_file, until
from perdure.dev import Platform
from perdure.dev.child import Happening

pytestmark = [pytest.mark.sidecar, pytest.mark.timeout(180)]

STALE_S, SWEEP_S = 2, 2
FAST = {"PERDURE_RUN__STALE_S": f"{STALE_S}", "PERDURE_RUN__BEAT_S": "0.5", "PERDURE_RUN__SWEEP_EVERY_S": f"{SWEEP_S}"}
FIRST, SECOND = "assistant", "assistant-2"
SLACK_S = 6.0
"""For a loaded machine: what follows the stale time and the sweep takes tenths of a second."""


@dataclass
class Twins:
    """Two replicas, each asked directly."""

    platform: Platform
    folder: Path
    http: httpx2.AsyncClient
    clients: dict[str, Stubborn] = field(default_factory=dict)

    def at(self, name: str) -> Stubborn:
        return self.clients.setdefault(name, Stubborn(self.http, lambda: self.platform.app(name).url))

    def evidence(self) -> list[dict[str, Any]]:
        file = self.folder / "evidence.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def hold(self, on: bool) -> None:
        """Have whatever a service does take until it is let go."""
        (self.folder / "hold").touch() if on else (self.folder / "hold").unlink()

    async def begin(self, name: str, count: int, agent: str = "patient") -> list[str]:
        """That many turns begun at one replica."""
        ids = []
        for n in range(count):
            body = {"agent": agent, "text": str(n), "key": f"{agent}-{n}", "wait_s": 0}
            ids.append((await self.at(name).begin("/turns", **body))["id"])
        return ids

    async def at_work(self, pid: int | None, count: int) -> None:
        """Return when that process has begun something for so many turns."""

        async def begun() -> bool:
            return len({line["n"] for line in self.evidence() if line["pid"] == pid}) >= count

        await until(begun, f"{count} turns are at work")

    async def done(self, name: str, ids: list[str], within_s: float) -> float:
        """Seconds until one replica tells that all are done."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            for turn in ids:
                shown = await self.at(name).ends(f"/turns/{turn}")
                assert shown["status"] == "done", shown
        return time.monotonic() - began

    async def last_answers(self, numbers: set[int], within_s: float) -> None:
        """Return when the model was asked for the last time in each of these turns of the patient agent."""

        async def asked() -> bool:
            return numbers <= {line["n"] for line in self.evidence() if line.get("step") == 3}

        await until(asked, "the turns come to their end", within_s)

    async def events(self, name: str, ids: list[str]) -> list[list[dict[str, Any]]]:
        return [await self.at(name).events(f"/turns/{turn}") for turn in ids]


@asynccontextmanager
async def twins(folder: Path, env: dict[str, str], **wishes: Any) -> AsyncIterator[Twins]:
    file = run_file(folder, {"assistant": "evidence_app:app"})
    wishes = {"replicas": {"assistant": 2}, "restart": False, **wishes}
    async with httpx2.AsyncClient(timeout=20, limits=httpx2.Limits(max_connections=100)) as http:
        async with Platform(
            folder / ".perdure", run_file=file, ports="auto", services=["assistant"], env=env, **wishes
        ) as platform:
            yield Twins(platform, folder, http)
            names = [replica.name for replica in platform.topology.replicas]
            assert not complaints(platform, names)
        await nothing_left(platform, folder)


def check_single_driver(lines: list[dict[str, Any]]) -> None:
    """In every epoch of a run one process works, and no older epoch begins anything after a newer one has."""
    process: dict[tuple[str, int], int] = {}
    newest: dict[str, int] = defaultdict(int)
    for line in lines:
        if line["what"] != "start" or "epoch" not in line:
            continue
        run, epoch = line["run"], line["epoch"]
        assert process.setdefault((run, epoch), line["pid"]) == line["pid"], f"{run} is driven by two in epoch {epoch}"
        assert epoch >= newest[run], f"{run}: epoch {epoch} begins something after epoch {newest[run]}"
        newest[run] = epoch


def begun_twice(lines: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The tool calls and model calls that began more than once."""
    starts = [line for line in lines if line["what"] == "start"]
    begun = Counter((line["n"], line["tool"], line.get("key", line.get("step"))) for line in starts)
    return [what for what, times in begun.items() if times > 1]


async def test_no_run_is_driven_by_both(tmp_path: Path) -> None:
    """However the sidecars spread the hosts' activities: each step begins once, in one process an epoch."""
    async with twins(tmp_path, {**FAST, "PERDURE_RUN__HOST_AFTER_S": "0.1"}) as both:

        async def caller(at: int) -> None:
            for n in range(4):
                number, session = at * 10 + n, f"s{at % 4}"
                body = {"agent": "worker", "text": str(number), "key": f"k{number}", "session": session, "wait_s": 5}
                asked = await asyncio.gather(*(both.at(name).begin("/turns", **body) for name in (FIRST, SECOND)))
                assert asked[0]["id"] == asked[1]["id"]
                shown = await both.at((FIRST, SECOND)[n % 2]).ends(f"/turns/{asked[0]['id']}")
                expected = [f"{tool} {number}" for tool in ("look", "put", "send", "book", "look")]
                assert shown["answer"].split("; ") == expected, shown
            body = {"pipeline": "chain", "input": {"n": at}, "key": f"chain-{at}", "wait_s": 10}
            runs = await asyncio.gather(*(both.at(name).begin("/runs", **body) for name in (FIRST, SECOND)))
            assert runs[0]["id"] == runs[1]["id"]
            shown = await both.at(FIRST).ends(f"/runs/{runs[0]['id']}")
            assert shown["outputs"]["store"]["way"] == ["fetch", "check", "store"]

        await asyncio.gather(*(caller(at) for at in range(8)))
        lines = both.evidence()
        check_single_driver(lines)
        begun = [
            (line["n"], line["tool"], line.get("key", line.get("step"))) for line in lines if line["what"] == "start"
        ]
        assert len(begun) == len(set(begun))
        assert len({line["pid"] for line in lines}) == 2


@pytest.mark.parametrize("victims", [(FIRST,), (FIRST, f"{FIRST}.sidecar")], ids=["app", "both"])
async def test_the_other_carries_on_for_a_dead_one(
    tmp_path: Path, victims: tuple[str, ...], record_property: Any
) -> None:
    """Turns of a replica that died, and stays dead, go on in the other one soon after the stale time."""
    async with twins(tmp_path, FAST) as both:
        both.hold(True)
        ids = await both.begin(FIRST, 6)
        await both.at_work(both.platform.pids[FIRST], 6)
        await asyncio.gather(*(both.platform.kill(name) for name in victims))
        both.hold(False)
        took = await both.done(SECOND, ids, STALE_S + SWEEP_S + SLACK_S)
        record_property("carried on after s", f"{took:.1f}")
        check_single_driver(both.evidence())


@pytest.mark.chaos
async def test_the_other_carries_on_within_the_default_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the settings as shipped: at the latest after the stale time (10 s) and 30 s."""

    async def carried_on(how: signal.Signals) -> float:
        (tmp_path / how.name).mkdir()
        async with twins(tmp_path / how.name, {}) as both:
            both.hold(True)
            ids = await both.begin(FIRST, 6)
            await both.at_work(both.platform.pids[FIRST], 6)
            both.platform.signal(FIRST, how)
            both.hold(False)
            took = await both.done(SECOND, ids, 40)
            check_single_driver(both.evidence())
            both.platform.signal(FIRST, signal.SIGCONT)
            return took

    killed, frozen = await asyncio.gather(carried_on(signal.SIGKILL), carried_on(signal.SIGSTOP))
    with capsys.disabled():
        print(f"\nthe other replica was done {killed:.1f} s after the kill, {frozen:.1f} s after the freeze")  # noqa: T201


async def test_who_was_frozen_adds_nothing(tmp_path: Path) -> None:
    """A replica that freezes in the middle of its turns and thaws after the other has ended them leaves no trace."""
    async with twins(tmp_path, FAST) as both:
        both.hold(True)
        ids = await both.begin(FIRST, 6)
        frozen = both.platform.pids[FIRST]
        await both.at_work(frozen, 6)
        both.platform.signal(FIRST, signal.SIGSTOP)
        both.hold(False)
        await both.done(SECOND, ids, STALE_S + SWEEP_S + SLACK_S)
        told, seen = await both.events(SECOND, ids), len(both.evidence())
        both.platform.signal(FIRST, signal.SIGCONT)

        async def calm() -> bool:
            ready = await both.http.get(f"{both.platform.app(FIRST).url}/readyz")
            return ready.status_code == 200 and not (await both.at(FIRST).send("GET", "/runs")).json()["runs"]

        await until(calm, "the thawed replica drives nothing")
        later = both.evidence()[seen:]
        assert not [line for line in later if line["what"] == "start" and line["pid"] == frozen], later
        assert await both.events(SECOND, ids) == told
        assert await both.events(FIRST, ids) == told
        check_single_driver(both.evidence())
        (again,) = await both.begin(FIRST, 1)
        assert again == ids[0]


async def test_a_turn_that_waits_at_a_frozen_replica_is_approved_at_the_other(tmp_path: Path) -> None:
    """Who waits for a person is not bound to a replica: the yes arrives anywhere and the turn goes on there at once."""
    async with twins(tmp_path, FAST) as both:
        (turn,) = await both.begin(FIRST, 1, "banker")
        shown = await both.at(FIRST).rests(f"/turns/{turn}")
        (question,) = shown["waiting_for"]
        both.platform.signal(FIRST, signal.SIGSTOP)
        decision = {"decision": "approve", "digest": question["digest"]}
        said = await both.at(SECOND).send("POST", f"/turns/{turn}/approvals/{question['call']}", decision)
        assert said.status_code == 200, said.text
        await both.done(SECOND, [turn], SLACK_S)
        both.platform.signal(FIRST, signal.SIGCONT)
        assert (await both.at(FIRST).ends(f"/turns/{turn}"))["answer"] == "look 0; pay 0"
        assert len([line for line in both.evidence() if (line["what"], line["tool"]) == ("happened", "pay")]) == 1


@pytest.mark.parametrize("frozen", ["valkey", f"{FIRST}.sidecar"])
async def test_a_driver_knows_its_own_commits_again(tmp_path: Path, frozen: str) -> None:
    """Saves that time out and are written all the same: the driver goes on in its epoch, nothing is done twice."""
    async with twins(tmp_path, {}, replicas={"assistant": 1}, restart=True) as alone:
        turns = asyncio.create_task(_many_turns(alone, 24))
        for turn in range(3):
            await alone.at_work(alone.platform.pids[FIRST], 3 + 7 * turn)
            alone.platform.signal(frozen, signal.SIGSTOP)
            await _log_says(alone, "store_away", turn + 1)
            alone.platform.signal(frozen, signal.SIGCONT)
        ids = await turns
        lines = alone.evidence()
        begun = [
            (line["n"], line["tool"], line.get("key", line.get("step"))) for line in lines if line["what"] == "start"
        ]
        assert len(begun) == len(set(begun))
        for events in await alone.events(FIRST, ids):
            assert [event["t"] for event in events].count("claimed") <= 1
        assert {line["epoch"] for line in lines if "epoch" in line} == {1}


async def _many_turns(twins: Twins, count: int) -> list[str]:
    async def one(n: int) -> str:
        await asyncio.sleep(n * 0.15)
        body = {"agent": "patient", "text": str(n), "key": f"own-{n}", "wait_s": 0}
        turn = str((await twins.at(FIRST).begin("/turns", **body))["id"])
        shown = await twins.at(FIRST).ends(f"/turns/{turn}")
        assert shown["answer"] == "; ".join([f"put {n}"] * 3), shown
        return turn

    return await asyncio.gather(*(one(n) for n in range(count)))


async def _log_says(twins: Twins, event: str, times: int) -> None:
    async def said() -> bool:
        return twins.platform.log(FIRST).read_text().count(f'"event": "{event}"') >= times

    await until(said, f"the log says {event} {times} times", 15)


async def test_a_rolling_stop_hands_turns_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM in the middle of turns: the other goes on with them at once, the process ends with 0 and no traceback."""
    async with twins(tmp_path, {}) as both:
        took = []
        for number, (leaving, staying) in enumerate(((FIRST, SECOND), (SECOND, FIRST))):
            ids = []
            for n in range(6):
                body = {"agent": "patient", "text": str(100 * number + n), "key": f"roll-{number}-{n}", "wait_s": 0}
                ids.append((await both.at(leaving).begin("/turns", **body))["id"])
            pid = both.platform.pids[leaving]
            began = time.monotonic()
            await both.platform.stop(leaving)
            stopped = time.monotonic() - began
            await both.last_answers({100 * number + n for n in range(6)}, 10)  # without anybody asking for them
            took.append((stopped, time.monotonic() - began))
            await both.done(staying, ids, SLACK_S)
            ended = [event.detail for event in both.platform.events if event.what is Happening.STOPPED]
            assert ended[-1] == "with exit code 0"
            assert pid is not None
            await both.platform.start(leaving)
            await both.platform.ready(leaving)
        lines = both.evidence()
        check_single_driver(lines)
        begun = [
            (line["n"], line["tool"], line.get("key", line.get("step"))) for line in lines if line["what"] == "start"
        ]
        assert len(begun) == len(set(begun))
    with capsys.disabled():
        print("\n" + "; ".join(f"stopped after {a:.1f} s, turns done after {b:.1f} s" for a, b in took))  # noqa: T201
