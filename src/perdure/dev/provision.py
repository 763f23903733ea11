"""A Dapr on any machine: the one that is there, else the official release, else built from source modules."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from perdure.clock import Clock, SystemClock
from perdure.dev.build import PROGRAMS, build, find_go
from perdure.dev.download import Release, Unreachable, download
from perdure.dev.runtime import CLI_VERSION, RUNTIME_VERSION, DaprRuntime, find_runtime, own_folder, runtime_in
from perdure.errors import Failed

LOCK_ASKED_EVERY_S = 1.0

Say = Callable[[str], None]


async def ensure_runtime(
    cache: Path,
    say: Say,
    *,
    only_own: bool = False,
    release: Release | None = None,
    from_source: bool = False,
    clock: Clock | None = None,
) -> DaprRuntime:
    """The Dapr to use; fetched or built into `cache` when none is there. May be interrupted and repeated.

    `only_own` ignores what the machine has elsewhere; `from_source` skips the download.
    Raises: Failed (code `runtime_unavailable`) saying what to install.
    """
    clock = clock or SystemClock()
    if found := await asyncio.to_thread(find_runtime, cache, only_own=only_own):
        say(f"Dapr {found.version} is here: {found.daprd.parent}")
        return found
    folder = own_folder(cache)
    say("no Dapr 1.18 or newer on this machine; getting one, once per user:")
    say(f"runtime {RUNTIME_VERSION} and CLI {CLI_VERSION} into {folder}")
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    async with _alone(cache, say, clock):
        if await asyncio.to_thread(runtime_in, folder) is None:
            await _fill(folder, say, release or Release(), clock, from_source=from_source)
    runtime = await asyncio.to_thread(runtime_in, folder)
    if runtime is None:
        raise Failed(
            "runtime_unavailable", f"the programs in {folder} do not run here; remove that folder and try again"
        )
    say(f"Dapr {runtime.version} is ready: {folder}")
    return runtime


async def _fill(folder: Path, say: Say, release: Release, clock: Clock, *, from_source: bool) -> None:
    if not from_source:
        try:
            await download(release, folder, say)
        except Unreachable as error:
            say(f"the release cannot be fetched ({error}); building from source modules instead")
        else:
            return
    if await asyncio.to_thread(find_go) is None:
        raise Failed(
            "runtime_unavailable",
            "Dapr can neither be downloaded (no way to github.com) nor built (no Go 1.26 or newer on PATH). Install Go "
            "(https://go.dev/dl), or Dapr itself (`dapr init --slim`, https://docs.dapr.io/getting-started), "
            "then run `make runtime` again",
        )
    say("building the runtime with the components that perdure's local platform uses; about 7 minutes on two cores,")
    say("and it may be interrupted: what is built stays")
    await build(folder, PROGRAMS, say, clock)


@contextlib.asynccontextmanager
async def _alone(cache: Path, say: Say, clock: Clock) -> AsyncIterator[None]:
    with (cache / "runtime.lock").open("w") as lock:
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    say("another process is getting it already; waiting for that one")
                    told = True
                await clock.sleep(LOCK_ASKED_EVERY_S)
        yield
