"""`python -m benchmarks [--quick] [--json FILE] [ROW …]`: measure, and show the figures beside their marks."""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from benchmarks.bench import Bench, bench
from benchmarks.report import Figure, save, show
from benchmarks.rows import kills, lasting, resting, turn, written
from perdure.cli.serve import COLLECT_AFTER

Row = Callable[[Bench], Awaitable[list[Figure]]]

ROWS: dict[str, Row] = {
    "turn": turn.one_turn,
    "sessions": turn.many_sessions,
    "old": turn.old_session,
    "bytes": written.written,
    "hosted": lasting.hosted,
    "idle": resting.idle,
    "sleeping": resting.sleeping,
    "import": resting.importing,
    "kill": kills.recovery,
    "kills": kills.random_kills,
}


async def measure(names: list[str], figures: list[Figure], *, quick: bool) -> None:
    """Add all figures of the named rows to `figures`, so that a row that fails loses none of those before it."""
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        async with bench(Path(folder), quick=quick) as made:
            for name in names:
                began = time.perf_counter()
                figures += await ROWS[name](made)
                print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    """A slow machine is not an error: what misses its mark is shown as such, and the exit code stays 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"what to measure: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="about a minute instead of about five")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    asked = parser.parse_args()
    unknown = [row for row in asked.rows if row not in ROWS]
    if unknown:
        parser.error(f"unknown row {', '.join(unknown)}; there are: {', '.join(ROWS)}")
    figures: list[Figure] = []
    gc.set_threshold(*COLLECT_AFTER)  # as in a service
    try:
        uvloop.run(measure(asked.rows or list(ROWS), figures, quick=asked.quick))
    finally:
        show(figures)
        if asked.json is not None:
            save(figures, asked.json, "quick" if asked.quick else "full")


if __name__ == "__main__":
    main()
