"""Kills processes of a platform at random moments, and measures how long it takes until work goes on."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from perdure.dev import Platform


@dataclass
class Killer:
    """Rounds of `victims` (each one or several processes at once) in random order, so that each gets its turn."""

    platform: Platform
    victims: Sequence[tuple[str, ...]]
    dice: random.Random
    recovered: list[tuple[str, float]] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    async def kill(self, times: int, *, least_s: float = 0.1, most_s: float = 1.0, haste: float = 0.2) -> None:
        """That many times: some time after all is well (with probability `haste`: before it is), kill somebody."""
        order = itertools.chain.from_iterable(
            self.dice.sample(self.victims, len(self.victims)) for _ in itertools.count()
        )
        for chosen in itertools.islice(order, times):
            await asyncio.sleep(self.dice.uniform(least_s, most_s))  # the moment is what chance decides here
            at = time.monotonic()
            await asyncio.gather(*(self._one(name) for name in chosen))
            self.killed.append("+".join(chosen))
            if self.dice.random() >= haste:
                await self.platform.ready(timeout_s=60)
                self.recovered.append(("+".join(chosen), time.monotonic() - at))
        await self.platform.ready(timeout_s=60)

    async def _one(self, name: str) -> None:
        await self.platform.start(name)  # one that is just being restarted exists first
        await self.platform.kill(name)

    def report(self) -> str:
        """The figures, for people."""
        lines = [f"{len(self.killed)} kills: " + ", ".join(f"{n}x {v}" for v, n in _counted(self.killed).items())]
        for victim in sorted({name for name, _ in self.recovered}):
            times = sorted(t for name, t in self.recovered if name == victim)
            middle = times[len(times) // 2]
            lines.append(
                f"all ready again after {victim}: median {middle:.2f} s, longest {times[-1]:.2f} s ({len(times)}x)"
            )
        return "\n".join(lines)


def _counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}
