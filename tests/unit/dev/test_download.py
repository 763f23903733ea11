"""Fetching a release, from a server on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from perdure.dev.download import Release, Unreachable, download
from perdure.errors import Failed

PROGRAMS = ("daprd", "placement", "scheduler", "dapr")


def archive(name: str) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as tar:
        entry = tarfile.TarInfo(name)
        content = f"#!/bin/sh\necho {name}\n".encode()
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def release_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, url in Release("").archives().items():
        files[url] = archive(name)
        files[f"{url}.sha256"] = f"{hashlib.sha256(files[url]).hexdigest()}  {name}".encode()
    return files


@asynccontextmanager
async def served(files: dict[str, bytes]) -> AsyncIterator[Release]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = urlsplit((await reader.readuntil(b"\r\n\r\n")).split()[1].decode()).path
        body = files.get(path)
        status = "404 Not Found" if body is None else "200 OK"
        head = f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {len(body or b'')}\r\n\r\n"
        writer.write(head.encode() + (body or b""))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Release(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_release_whose_checksums_hold_is_unpacked(tmp_path: Path) -> None:
    """The four programs are there, executable, and no temporary file is left."""
    async with served(release_files()) as release:
        await download(release, tmp_path, lambda line: None)
    assert {path.name for path in tmp_path.iterdir()} == set(PROGRAMS)
    assert all(path.stat().st_mode & 0o111 for path in tmp_path.iterdir())


async def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    """An interrupted download goes on where it was."""
    (tmp_path / "daprd").write_text("mine")
    told: list[str] = []
    async with served(release_files()) as release:
        await download(release, tmp_path, told.append)
    assert (tmp_path / "daprd").read_text() == "mine"
    assert len(told) == len(PROGRAMS) - 1


async def test_an_archive_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    """Nothing of it is installed."""
    files = release_files()
    url = Release("").archives()["daprd"]
    files[url] += b"changed"
    async with served(files) as release:
        with pytest.raises(Failed, match="nothing was installed"):
            await download(release, tmp_path, lambda line: None)
    assert list(tmp_path.iterdir()) == []


async def test_no_way_to_the_release_is_told_in_seconds(tmp_path: Path) -> None:
    """A refused connection and a missing file both mean: not from here."""
    async with served({}) as release:
        with pytest.raises(Unreachable, match="404"):
            await download(release, tmp_path, lambda line: None)
    with pytest.raises(Unreachable):
        await download(release, tmp_path, lambda line: None)
