"""Reading `dapr.yaml`."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.dev.runfile import read_run_file
from perdure.errors import Invalid, NotFound

APP = """
version: 1
common:
  resourcesPaths: [components]
  env: {LEVEL: 1, SHARED: common}
apps:
  - appID: one
    appDirPath: services
    appPort: 8001
    daprHTTPPort: 3501
    daprGRPCPort: 5001
    daprInternalGRPCPort: 5101
    metricsPort: 9101
    env: {SHARED: own}
    command: [python, app.py]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "dapr.yaml"
    path.write_text(text)
    return path


def test_common_keys_reach_each_app_and_its_own_win(tmp_path: Path) -> None:
    """Environment is merged as text; paths of `common` are relative to the file, an app's own folder too."""
    (app,) = read_run_file(write(tmp_path, APP)).apps
    assert app.env == {"LEVEL": "1", "SHARED": "own"}
    assert app.resources_paths == (str(tmp_path / "components"),)
    assert app.app_dir_path == str(tmp_path / "services")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("metricsPort: 9101", "metricPort: 9101"), "metricPort"),
        (("appPort: 8001", "appPort: many"), "appPort"),
        (("command: [python, app.py]", "command: []"), "command"),
        (("version: 1", "version: 1\nextra: 2"), "extra"),
        (("appID: one", "appID: Not_An_Id"), "appID"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    """Misspelt or unknown keys are refused by name instead of being skipped."""
    with pytest.raises(Invalid, match=named):
        read_run_file(write(tmp_path, APP.replace(*change)))


def test_text_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    """A broken file gives one message that names it."""
    with pytest.raises(Invalid, match=r"dapr\.yaml is not YAML"):
        read_run_file(write(tmp_path, "apps: ["))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """Outside of a project the message says where to go."""
    with pytest.raises(NotFound, match="run this in the project's folder"):
        read_run_file(tmp_path / "dapr.yaml")


def test_an_unknown_service_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """Who mistypes a service sees the names to choose from."""
    with pytest.raises(NotFound, match="there are: one"):
        read_run_file(write(tmp_path, APP)).select(("two",))
