"""The official release archives of Dapr, each checked against its published SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import io
import platform
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2

from perdure.dev.runtime import CLI_VERSION, RUNTIME_VERSION
from perdure.errors import Failed

CONNECT_WITHIN_S = 4.0
READ_WITHIN_S = 20.0


class Unreachable(Exception):
    """The release cannot be fetched from here."""


@dataclass(frozen=True, slots=True)
class Release:
    """Where the archives are; `origin` has a folder per project."""

    origin: str = "https://github.com/dapr"

    def archives(self) -> dict[str, str]:
        """URL of the archive of each program."""
        suffix = f"{platform.system().lower()}_{_architecture()}.tar.gz"
        runtime = f"{self.origin}/dapr/releases/download/v{RUNTIME_VERSION}"
        urls = {name: f"{runtime}/{name}_{suffix}" for name in ("daprd", "placement", "scheduler")}
        return urls | {"dapr": f"{self.origin}/cli/releases/download/v{CLI_VERSION}/dapr_{suffix}"}


async def download(release: Release, folder: Path, say: Callable[[str], None]) -> None:
    """Put the four programs into `folder`; those that are there stay.

    Raises: Unreachable within seconds without a way there; Failed (code `checksum_wrong`).
    """
    timeout = httpx2.Timeout(READ_WITHIN_S, connect=CONNECT_WITHIN_S)
    async with httpx2.AsyncClient(timeout=timeout, follow_redirects=True) as client:
        for name, url in release.archives().items():
            if (folder / name).exists():
                continue
            expected = (await _fetch(client, f"{url}.sha256")).decode().split()[0]
            say(f"downloading {url}")
            archive = await _fetch(client, url)
            if (actual := hashlib.sha256(archive).hexdigest()) != expected:
                raise Failed(
                    "checksum_wrong",
                    f"{url} has SHA-256 {actual}, published is {expected}; nothing was installed. Try again, "
                    "or build it with `perdure dev runtime --from-source`",
                )
            await asyncio.to_thread(_unpack, archive, name, folder)


async def _fetch(client: httpx2.AsyncClient, url: str) -> bytes:
    try:
        answer = await client.get(url)
    except httpx2.TransportError as error:
        raise Unreachable(f"{httpx2.URL(url).host}: {type(error).__name__}") from error
    if answer.status_code != httpx2.codes.OK:
        raise Unreachable(f"{url} answers {answer.status_code}")
    return answer.content


def _unpack(archive: bytes, name: str, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        member = tar.extractfile(name)
        if member is None:
            raise Failed("archive_malformed", f"the release archive holds no file '{name}'")
        temporary = folder / f".{name}.new"
        temporary.write_bytes(member.read())
    temporary.chmod(0o755)
    temporary.replace(folder / name)


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
