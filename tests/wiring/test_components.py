"""What the sidecars may touch: one file a role, scoped, with the metadata that Dapr 1.18 understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from perdure.dev.ports import ServerPorts
from perdure.dev.runfile import read_run_file

ROOT = Path(__file__).parents[2]
SERVICES = {app.app_id for app in read_run_file(ROOT / "dapr.yaml").apps}
RESOURCES: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "components").glob("*.yaml"))
}
COMPONENTS = {name: item for name, item in RESOURCES.items() if item["kind"] == "Component"}
EXPECTED = {
    "workflowstatestore": "state.redis",
    "agentstatestore": "state.redis",
    "conversationstore": "state.redis",
    "registrystore": "state.redis",
    "messagepubsub": "pubsub.redis",
    "chat": "conversation.echo",
    "secretstore": "secretstores.local.env",
}


def metadata(name: str) -> dict[str, Any]:
    return {entry["name"]: entry["value"] for entry in COMPONENTS[name]["spec"]["metadata"]}


def test_the_roles_are_complete() -> None:
    """Exactly the components of the design exist, each in a file of its own name."""
    assert {name: item["spec"]["type"] for name, item in COMPONENTS.items()} == EXPECTED
    assert all(item["metadata"]["name"] == name for name, item in COMPONENTS.items())


@pytest.mark.parametrize("name", RESOURCES)
def test_a_resource_is_scoped_to_services_that_exist(name: str) -> None:
    """Nothing is open to whoever comes: every resource lists the services that may use it."""
    assert RESOURCES[name]["apiVersion"] == "dapr.io/v1alpha1"
    assert RESOURCES[name]["scopes"]
    assert set(RESOURCES[name]["scopes"]) <= SERVICES


def test_one_store_keeps_workflows() -> None:
    """Only the workflow store is an actor store; a second one would make every sidecar refuse to start."""
    actor_stores = [name for name in COMPONENTS if metadata(name).get("actorStateStore") == "true"]
    assert actor_stores == ["workflowstatestore"]


def test_only_the_registry_is_shared() -> None:
    """Keys of other stores carry the app's id, so no service reads another one's state."""
    prefixes = {name: metadata(name).get("keyPrefix", "appid") for name in COMPONENTS if name.endswith("store")}
    assert {name for name, prefix in prefixes.items() if prefix != "appid"} == {"registrystore"}
    assert prefixes["registrystore"] == "name"


def test_all_state_is_on_the_platforms_valkey() -> None:
    """Every Redis address is the port that the platform starts Valkey on."""
    hosts = {metadata(name)["redisHost"] for name in COMPONENTS if "redis" in EXPECTED[name]}
    assert hosts == {f"localhost:{ServerPorts().valkey}"}


def test_redelivery_times_are_plain_milliseconds() -> None:
    """A duration text would silently be ignored before Dapr 1.19, and messages of a killed sidecar wait a minute."""
    found = metadata("messagepubsub")
    assert int(found["redeliverInterval"]) < int(found["processingTimeout"])


def test_the_sidecars_configuration_keeps_its_living_names() -> None:
    """The name table is never cleaned up (that removes living rows), and finished workflows are."""
    spec = yaml.safe_load((ROOT / "deploy/local/config.yaml").read_text())["spec"]
    assert spec["nameResolution"]["configuration"]["cleanupInterval"] == "0"
    assert spec["workflow"]["stateRetentionPolicy"].keys() == {"completed", "terminated", "failed"}
    assert {"name": "HotReload", "enabled": False} in spec["features"]
