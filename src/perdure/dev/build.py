"""Building Dapr from Go modules: where there is a Go toolchain and a module proxy, but no way to the release.

The modules are versioned and checked by Go against its checksum database. daprd gets only the
components that perdure's files name, which takes half the time and less than half the size.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from perdure.clock import Clock
from perdure.dev import environment
from perdure.dev.runtime import CLI_VERSION, RUNTIME_VERSION
from perdure.errors import Failed

GO_MINIMUM = (1, 24)
"""From here on Go fetches a newer toolchain by itself if a module asks for one."""

PROGRAMS = ("placement", "scheduler", "daprd", "dapr")
"""Quick ones first, so that an interruption costs little."""

COMPONENTS = (
    "zz_notag",
    *("state_redis", "state_sqlite", "state_postgres", "state_in-memory", "pubsub_redis", "pubsub_in-memory"),
    *("lock_redis", "configuration_redis", "secretstores_local_env", "secretstores_local_file"),
    *("secretstores_kubernetes", "conversation_echo", "conversation_openai", "conversation_anthropic"),
    *("conversation_ollama", "nameresolution_mdns", "nameresolution_kubernetes", "nameresolution_sqlite"),
    *("crypto_localstorage", "crypto_kubernetes_secrets", "bindings_cron", "bindings_http"),
    *("middleware_http_bearer", "middleware_http_ratelimit"),
)
"""The files of `cmd/daprd/components` that stay; the first holds what every build needs."""

TELL_EVERY_S = 15.0
ERROR_LINES = 20

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    folder: Path
    package: str
    flags: tuple[str, ...]
    env: dict[str, str]


def find_go() -> str | None:
    """The `go` on PATH, or in its usual folder, if it is new enough."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/opt/homebrew/bin")
    if go is None:
        return None
    with suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run([go, "version"], capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603
        found = re.search(r"go(\d+)\.(\d+)", told)
        if found and (int(found[1]), int(found[2])) >= GO_MINIMUM:
            return go
    return None


async def build(folder: Path, programs: Sequence[str], say: Say, clock: Clock) -> None:
    """Build those of `programs` that `folder` lacks; each appears there whole or not at all.

    Raises: Failed (code `build_failed`) with what Go said.
    """
    go = await asyncio.to_thread(find_go)
    if go is None:
        raise Failed("go_missing", "no Go toolchain on PATH; install Go from https://go.dev/dl and try again")
    missing = [name for name in programs if not (folder / name).exists()]
    work = folder.parent.parent / "build"
    await asyncio.to_thread(work.mkdir, parents=True, exist_ok=True)
    for number, name in enumerate(missing, 1):
        step = await _prepare(go, name, work, say)
        say(f"building {name} ({number} of {len(missing)})")
        await _compile(go, step, folder, say, clock)
    await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)


async def _prepare(go: str, name: str, work: Path, say: Say) -> _Step:
    if name == "dapr":
        return await asyncio.to_thread(_cli_step, work)
    source = work / "runtime"
    if not (source / ".complete").exists():
        say(f"fetching the modules of Dapr {RUNTIME_VERSION}")
        module = await _module_folder(go, f"github.com/dapr/dapr@v{RUNTIME_VERSION}", work)
        await asyncio.to_thread(_copy_runtime, module, source)
    stamped = ("github.com/dapr/dapr/pkg/buildinfo.version", "github.com/dapr/kit/logger.DaprVersion")
    stamp = " ".join(f"-X {variable}={RUNTIME_VERSION}" for variable in stamped)
    return _Step(name, source, f"./cmd/{name}", ("-tags", "allcomponents", "-ldflags", f"-s -w {stamp}"), {})


async def _module_folder(go: str, module: str, work: Path) -> Path:
    process = await asyncio.create_subprocess_exec(
        *(go, "mod", "download", "-json", module),
        cwd=work,
        env=_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    told = json.loads(output or b"{}")
    if "Dir" not in told:
        why = told.get("Error") or errors.decode(errors="replace").strip()
        raise Failed(
            "build_failed", f"Go cannot fetch {module}: {why}. Check the network or GOPROXY, then run it again"
        )
    return Path(told["Dir"])


def _copy_runtime(module: Path, source: Path) -> None:
    """A writable copy, where the module's own replace lines hold, without the components nobody asked for."""
    _make_writable(source)  # an interrupted copy keeps the read-only folders of Go's cache
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(module, source, copy_function=shutil.copyfile)
    _make_writable(source)
    for path in (source / "cmd" / "daprd" / "components").glob("*.go"):
        if path.stem not in COMPONENTS:
            path.unlink()
    (source / ".complete").touch()


def _make_writable(source: Path) -> None:
    for path in (source, *source.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)


def _cli_step(work: Path) -> _Step:
    """The CLI is built as a dependency of an empty module, because `go install` refuses its replace lines."""
    folder = work / "cli"
    folder.mkdir(parents=True, exist_ok=True)
    replace = "github.com/dapr/components-contrib"
    (folder / "go.mod").write_text(
        f"module tools\n\ngo 1.26\n\nrequire github.com/dapr/cli v{CLI_VERSION}\n\n"
        f"replace {replace} => {replace} v{CLI_VERSION}\n"
    )
    flags = ("-ldflags", f"-s -w -X main.version={CLI_VERSION} -X main.apiVersion=1.0")
    return _Step("dapr", folder, "github.com/dapr/cli", flags, {"GOFLAGS": "-buildvcs=false -mod=mod"})


async def _compile(go: str, step: _Step, folder: Path, say: Say, clock: Clock) -> None:
    temporary = folder / f".{step.name}.new"
    process = await asyncio.create_subprocess_exec(
        *(go, "build", "-v", "-trimpath", *step.flags, "-o", str(temporary), step.package),
        cwd=step.folder,
        env={**_environment(), **step.env},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        lines = await _follow(process, step.name, say, clock)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        raise Failed("build_failed", f"go build of {step.name} failed:\n" + "\n".join(lines[-ERROR_LINES:]))
    temporary.replace(folder / step.name)


async def _follow(process: asyncio.subprocess.Process, name: str, say: Say, clock: Clock) -> list[str]:
    """Read what Go compiles or complains about; tell now and then how far it is."""
    if process.stderr is None:
        return []
    lines: list[str] = []
    started = told = clock.monotonic()
    async for line in process.stderr:
        lines.append(line.decode(errors="replace").rstrip())
        if (now := clock.monotonic()) - told >= TELL_EVERY_S:
            told = now
            say(f"  {name}: {len(lines)} packages after {now - started:.0f} s")
    return lines


def _environment() -> dict[str, str]:
    return {**environment.inherited(), "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
