"""`dapr.yaml`, the folders of the services and the platform's default ports agree."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from perdure.dev.ports import ServerPorts
from perdure.dev.runfile import AppEntry, read_run_file
from perdure.dev.topology import plan

ROOT = Path(__file__).parents[2]
RUN_FILE = read_run_file(ROOT / "dapr.yaml")
SERVICES = {
    "assistant": "agents/assistant",
    "data-collector": "agents/data_collector",
    "data-processor": "agents/data_processor",
    "data-analyzer": "agents/data_analyzer",
    "alert-manager": "agents/alert_manager",
    "orchestrator": "orchestrator",
    "registry": "registry",
}
FIRST_EPHEMERAL_PORT = 32768


def test_every_service_is_there_once() -> None:
    """The run file names the seven services, each once."""
    assert [app.app_id for app in RUN_FILE.apps] == list(SERVICES)


def test_no_port_is_used_twice_and_none_can_be_taken_by_an_outgoing_connection() -> None:
    """All ports of two replicas of everything and of the servers differ and lie below the ephemeral range."""
    topology = plan(RUN_FILE.apps, {app.app_id: 2 for app in RUN_FILE.apps}, None)
    counted = Counter(topology.ports().values())
    assert [port for port, times in counted.items() if times > 1] == []
    assert max(counted) < FIRST_EPHEMERAL_PORT


def test_plain_dapr_run_finds_the_platforms_servers() -> None:
    """The addresses for `dapr run` are the platform's default ports, and components name its Valkey."""
    common = yaml.safe_load((ROOT / "dapr.yaml").read_text())["common"]
    assert common["placementHostAddress"] == f"localhost:{ServerPorts().placement}"
    assert common["schedulerHostAddress"] == f"localhost:{ServerPorts().scheduler}"


@pytest.mark.parametrize("app", RUN_FILE.apps, ids=lambda app: app.app_id)
def test_a_service_runs_the_app_of_its_own_folder(app: AppEntry) -> None:
    """Each service starts `<folder>.app:app` from the repository's root, and that file exists."""
    folder = SERVICES[app.app_id]
    assert app.command[-1] == f"{folder.replace('/', '.')}.app:app"
    assert Path(app.app_dir_path) == ROOT
    assert (ROOT / folder / "app.py").is_file()
