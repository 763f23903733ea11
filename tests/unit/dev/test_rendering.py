"""Component files as the platform's sidecars see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from perdure.dev.rendering import render_configuration, render_resources
from perdure.errors import NotFound

ROOT = Path(__file__).parents[3]


def rendered(folder: Path, env: dict[str, str]) -> dict[str, dict[str, Any]]:
    render_resources((str(ROOT / "components"),), folder, "127.0.0.1:7777", env)
    documents = (yaml.safe_load(path.read_text()) for path in folder.iterdir())
    return {item["metadata"]["name"]: item for item in documents}


def metadata(component: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("envRef")) for entry in component["spec"]["metadata"]}


def test_only_the_address_of_valkey_changes(tmp_path: Path) -> None:
    """Every other value, the scopes and the resiliency policy are those of the files."""
    found = rendered(tmp_path / "out", {})
    for path in (ROOT / "components").glob("*.yaml"):
        original = yaml.safe_load(path.read_text())
        for entry in original["spec"].get("metadata", []):
            if entry["name"] == "redisHost":
                entry["value"] = "127.0.0.1:7777"
        assert found[original["metadata"]["name"]] == original


def test_what_a_former_rendering_left_is_gone(tmp_path: Path) -> None:
    """A component that was removed from the source does not linger."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "0-old.yaml").write_text("kind: Component")
    rendered(folder, {})
    assert not (folder / "0-old.yaml").exists()


def test_with_a_key_the_chat_component_is_a_real_model_and_the_key_stays_in_the_environment(tmp_path: Path) -> None:
    """The rendered file names the variable, never the key."""
    chat = rendered(tmp_path / "out", {"OPENAI_API_KEY": "sk-secret", "OPENAI_MODEL": "m-1"})["chat"]
    assert chat["spec"]["type"] == "conversation.openai"
    assert metadata(chat) == {"key": "OPENAI_API_KEY", "model": "m-1"}
    assert "sk-secret" not in str(chat)


def test_an_endpoint_alone_is_enough(tmp_path: Path) -> None:
    """A model server on this machine needs an address and no key."""
    chat = rendered(tmp_path / "out", {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})["chat"]
    assert metadata(chat) == {"key": "none", "endpoint": "http://127.0.0.1:9/v1"}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Sidecars without components would start and fail later; this fails now."""
    with pytest.raises(NotFound, match="nowhere"):
        render_resources((str(tmp_path / "nowhere"),), tmp_path / "out", "x", {})


def test_each_platform_has_its_own_table_of_names(tmp_path: Path) -> None:
    """The configuration of a rendered platform points at the file in its home."""
    target = render_configuration(str(ROOT / "deploy/local/config.yaml"), tmp_path / "c.yaml", tmp_path / "names.db")
    assert target is not None
    spec = yaml.safe_load(target.read_text())["spec"]
    assert spec["nameResolution"]["configuration"]["connectionString"] == str(tmp_path / "names.db")


def test_the_model_that_a_component_names_counts_and_the_environment_fills_the_gaps(tmp_path: Path) -> None:
    """A variable for the whole machine does not turn two models into one."""
    source = tmp_path / "source"
    source.mkdir()
    for name, entries in (("own", [{"name": "model", "value": "mine"}]), ("open", [])):
        spec = {"type": "conversation.openai", "version": "v1", "metadata": entries}
        document = {"kind": "Component", "metadata": {"name": name}, "spec": spec}
        (source / f"{name}.yaml").write_text(yaml.safe_dump(document))
    out = tmp_path / "out"
    render_resources((str(source),), out, "x", {"OPENAI_MODEL": "everybody's"})
    found = {item["metadata"]["name"]: item for item in (yaml.safe_load(path.read_text()) for path in out.iterdir())}
    assert metadata(found["own"]) == {"model": "mine"}
    assert metadata(found["open"]) == {"model": "everybody's"}
