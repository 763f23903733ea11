"""Finding a Dapr and getting one."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.dev.download import Release
from perdure.dev.provision import ensure_runtime
from perdure.dev.runtime import find_runtime, own_folder, runtime_in
from perdure.errors import Failed

NOWHERE = Release("http://127.0.0.1:1")


def install(folder: Path, version: str, names: tuple[str, ...] = ("daprd", "placement", "scheduler", "dapr")) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
        (folder / name).chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine where nothing is installed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(("version", "suits"), [("1.18.2", True), ("1.19.0", True), ("2.0.0", True), ("1.17.9", False)])
def test_a_runtime_suits_from_1_18_on(bare: Path, version: str, suits: bool) -> None:
    """Older ones are as good as none."""
    install(bare / "bin", version)
    assert (runtime_in(bare / "bin") is not None) == suits


def test_an_incomplete_runtime_is_not_found(bare: Path) -> None:
    """`dapr init` with containers leaves only daprd, which is not enough to run without them."""
    install(bare / "bin", "1.18.2", ("daprd", "dapr"))
    assert runtime_in(bare / "bin") is None


def test_the_users_own_dapr_comes_first(bare: Path) -> None:
    """What is in ~/.dapr/bin is taken before what perdure fetched; `only_own` turns that round."""
    install(bare / "home" / ".dapr" / "bin", "1.19.0")
    install(own_folder(bare / "cache"), "1.18.2")
    found, own = find_runtime(bare / "cache"), find_runtime(bare / "cache", only_own=True)
    assert found is not None
    assert own is not None
    assert (found.version, own.version) == ("1.19.0", "1.18.2")
    assert own.root == own_folder(bare / "cache").parent.parent


async def test_nothing_is_done_when_it_is_there(bare: Path) -> None:
    """A second `make runtime` only says where it is."""
    install(own_folder(bare / "cache"), "1.18.2")
    told: list[str] = []
    await ensure_runtime(bare / "cache", told.append, release=NOWHERE)
    assert len(told) == 1
    assert told[0].startswith("Dapr 1.18.2 is here")


async def test_without_network_and_without_go_the_message_says_what_to_install(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person is told both ways out."""
    monkeypatch.setattr("perdure.dev.provision.find_go", lambda: None)
    with pytest.raises(Failed, match=r"Install Go.*or Dapr itself.*make runtime"):
        await ensure_runtime(bare / "cache", lambda line: None, release=NOWHERE)
