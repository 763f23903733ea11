"""Importing perdure is quick and brings nothing that was not asked for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import perdure

HEAVY = ("dapr", "grpc", "fastapi", "starlette", "uvicorn", "opentelemetry", "openai", "redis", "prometheus_client")
"""Libraries that only a running service needs."""

PROBE = """
import json, sys, time
began = time.perf_counter()
{statement}
modules = sorted({{m.split(".")[0] for m in sys.modules}})
print(json.dumps({{"seconds": time.perf_counter() - began, "modules": modules}}))
"""


def probe(statement: str) -> tuple[float, set[str]]:
    """Seconds that `statement` takes in a fresh interpreter, and the libraries loaded after it."""
    done = subprocess.run([sys.executable, "-c", PROBE.format(statement=statement)], check=True, capture_output=True)
    said = json.loads(done.stdout)
    return said["seconds"], set(said["modules"])


def test_import_perdure_takes_at_most_three_tenths_of_a_second() -> None:
    assert min(probe("import perdure")[0] for _ in range(3)) <= 0.3


@pytest.mark.parametrize(
    "statement",
    [
        "import perdure",
        "from perdure import App, DurableAgent, tool; App(agents=[DurableAgent('a', model='scripted:hi')])",
        "from perdure import Pipeline, StepAgent, Settings",
    ],
)
def test_declaring_a_service_loads_no_sdk_and_no_web_framework(statement: str) -> None:
    assert not probe(statement)[1] & set(HEAVY)


def test_declaring_a_service_takes_at_most_half_a_second() -> None:
    statement = "from perdure import App, DurableAgent, tool; App(agents=[DurableAgent('a', model='scripted:hi')])"
    assert min(probe(statement)[0] for _ in range(3)) <= 0.5


def test_a_local_runtime_loads_no_dapr_and_no_web_framework() -> None:
    statement = (
        "import asyncio\n"
        "from perdure import App, DurableAgent\n"
        "async def main():\n"
        "    async with App(agents=[DurableAgent('a', model='scripted:hi')]).local() as runtime:\n"
        "        assert await (await runtime.ask('a', 'hello')).answer() == 'hi'\n"
        "asyncio.run(main())"
    )
    assert not probe(statement)[1] & {"dapr", "grpc", "fastapi", "uvicorn", "opentelemetry"}


@pytest.mark.parametrize("name", perdure.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(perdure, name) is not None
    assert name in dir(perdure)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nothing"):
        perdure.Nothing  # noqa: B018
