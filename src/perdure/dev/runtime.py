"""Finding a Dapr that suits: runtime at least 1.18, with its placement, scheduler and CLI."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from perdure.errors import PerdureError

RUNTIME_VERSION = "1.18.2"
CLI_VERSION = "1.16.5"
MINIMUM = (1, 18)
ANSWER_WITHIN_S = 20


@dataclass(frozen=True, slots=True)
class DaprRuntime:
    """The four programs, and the version that daprd says it has."""

    daprd: Path
    placement: Path
    scheduler: Path
    cli: Path
    version: str

    @property
    def root(self) -> Path | None:
        """What `dapr --runtime-path` wants: the folder that holds `.dapr/bin`, if it is laid out so."""
        folder = self.daprd.parent
        return folder.parent.parent if folder.parts[-2:] == (".dapr", "bin") else None


def own_folder(cache: Path) -> Path:
    """Where perdure keeps the Dapr it fetched or built itself."""
    return cache / f"dapr-{RUNTIME_VERSION}" / ".dapr" / "bin"


def find_runtime(cache: Path, *, only_own: bool = False) -> DaprRuntime | None:
    """The first suitable Dapr of `~/.dapr/bin`, PATH and perdure's own folder under `cache`; None without one."""
    folders = [own_folder(cache)]
    if not only_own:
        on_path = shutil.which("daprd")
        folders = [Path.home() / ".dapr" / "bin", *([Path(on_path).resolve().parent] if on_path else []), *folders]
    for folder in folders:
        if runtime := runtime_in(folder):
            return runtime
    return None


def runtime_in(folder: Path) -> DaprRuntime | None:
    """The Dapr in `folder` (its CLI may be on PATH instead), or None when it lacks a program or is too old."""
    programs = {name: folder / name for name in ("daprd", "placement", "scheduler")}
    on_path = shutil.which("dapr")
    cli = folder / "dapr" if (folder / "dapr").is_file() else Path(on_path) if on_path else None
    if cli is None or not all(path.is_file() for path in programs.values()):
        return None
    version = version_of(programs["daprd"])
    if version is None or _numbers(version) < MINIMUM:
        return None
    return DaprRuntime(programs["daprd"], programs["placement"], programs["scheduler"], cli, version)


def version_of(daprd: Path) -> str | None:
    """What `daprd --version` says, or None when it cannot be run."""
    try:
        answer = subprocess.run(  # noqa: S603  # a program we looked for by its name
            [str(daprd), "--version"], capture_output=True, text=True, timeout=ANSWER_WITHIN_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def missing_runtime() -> PerdureError:
    """What to raise where a Dapr is needed and none is there."""
    from perdure.errors import NotFound

    return NotFound(
        "runtime_missing", f"no Dapr {MINIMUM[0]}.{MINIMUM[1]} or newer on this machine; run `make runtime`"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
