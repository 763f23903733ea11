"""The start-up check of the Dapr SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.errors import Failed
from perdure.sidecar.dapr.installed import require_one_piece


def install(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_one_distribution_of_the_sdk_is_fine(tmp_path: Path) -> None:
    """From 1.19 everything is in `dapr`."""
    install(tmp_path, "dapr", "1.19.0")
    require_one_piece([str(tmp_path)])


def test_the_environment_of_this_project_is_fine() -> None:
    """What `make install` makes passes its own check."""
    require_one_piece()


def test_a_mix_is_refused_with_its_repair(tmp_path: Path) -> None:
    """The message is a command that mends it."""
    install(tmp_path, "dapr", "1.19.0")
    install(tmp_path, "dapr-ext-workflow", "1.18.3")
    repair = r"pip uninstall -y dapr-ext-workflow && pip install --force-reinstall --no-deps 'dapr==1\.19\.0'"
    with pytest.raises(Failed, match=repair):
        require_one_piece([str(tmp_path)])


@pytest.mark.parametrize("version", [None, "1.18.3"])
def test_a_missing_or_old_sdk_is_refused(tmp_path: Path, version: str | None) -> None:
    """Before 1.19 the parts are separate, which perdure does not support."""
    if version:
        install(tmp_path, "dapr", version)
    with pytest.raises(Failed, match="pip install"):
        require_one_piece([str(tmp_path)])
