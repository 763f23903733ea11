"""A whole run over a store that delays, loses requests, loses answers after writing, and lets writes land late."""

from __future__ import annotations

import asyncio
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.testing.faults import Fault, FaultPlan, FaultyStateStore
from toy_stage import Toys

WRITES = st.lists(st.sampled_from([*Fault, Fault.NONE, Fault.NONE]), max_size=24)
READS = st.lists(st.sampled_from([Fault.NONE, Fault.NONE, Fault.LOST, Fault.SLOW]), max_size=40)


class Releasing:
    """Between two writes, what was thought lost arrives now and then."""

    def __init__(self, store: FaultyStateStore) -> None:
        self.store = store

    async def run(self, toys: Toys) -> None:
        while True:
            await toys.stage.clock.sleep(0.3)
            await self.store.faulty.release()


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(WRITES, READS, st.sampled_from([0.0, 0.4]), st.sampled_from([None, 600.0]), st.booleans())
def test_no_step_is_done_twice_or_lost_and_no_run_sticks(
    writes: list[Fault], reads: list[Fault], settle_s: float, approval_s: float | None, waits: bool
) -> None:
    """Also where the store gives up looking into what became of a write at once."""

    async def live() -> None:
        toys = Toys(approval_s=approval_s)
        plan = FaultPlan(writes, chain([Fault.NONE], reads))  # the first read: a start needs its store
        store = FaultyStateStore(toys.stage.store, plan, settle_s=settle_s, clock=toys.stage.clock)
        late = asyncio.create_task(Releasing(store).run(toys))
        await toys.stage.life(toys.client if waits else toys.onlooker, store=store, patience_s=120)
        await store.faulty.release()
        late.cancel()
        toys.check()
        assert toys.world.done["once:c"] == 1
        assert toys.world.done["read:a"] == 1

    asyncio.run(live())
