"""What every `Secrets` promises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from perdure.errors import NotFound
from perdure.sidecar.dapr.channel import SidecarChannel
from perdure.sidecar.dapr.secrets import DaprSecrets
from perdure.sidecar.memory import MemorySecrets
from perdure.sidecar.ports import Secrets


@pytest.fixture(params=["memory", pytest.param("dapr", marks=pytest.mark.sidecar)])
async def vault(request: pytest.FixtureRequest) -> AsyncIterator[Secrets]:
    if request.param == "memory":
        yield MemorySecrets({"secrets": {"CONTRACT_SECRET": "swordfish"}})
    else:
        channel = SidecarChannel(request.getfixturevalue("platform").address)
        yield DaprSecrets(channel)
        await channel.close()


async def test_a_secret_is_its_text(vault: Secrets) -> None:
    assert await vault.get("secrets", "CONTRACT_SECRET") == "swordfish"


async def test_an_unknown_secret_is_named_and_none_is_told(vault: Secrets) -> None:
    with pytest.raises(NotFound, match="NO_SUCH_SECRET") as caught:
        await vault.get("secrets", "NO_SUCH_SECRET")
    assert caught.value.code == "secret_unknown"


async def test_an_unknown_secret_store_is_named(vault: Secrets) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await vault.get("nowhere", "CONTRACT_SECRET")
