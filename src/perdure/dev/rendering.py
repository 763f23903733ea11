"""Component and configuration files as this platform's sidecars shall see them.

The files in `components/` are plain Dapr YAML with the default ports, so `dapr run` reads them as
they are. A platform on other ports, or with a real model, gets copies with only those values changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from perdure.errors import NotFound

REDIS_KEYS = {"redisHost"}
MODEL_VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


def render_resources(sources: tuple[str, ...], target: Path, valkey: str, env: Mapping[str, str]) -> None:
    """Copy every resource of `sources` into `target`, which then holds nothing else.

    `valkey` is `host:port`. Raises: NotFound when a folder is missing.
    """
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        old.unlink()
    for number, source in enumerate(sources):
        if not Path(source).is_dir():
            raise NotFound("resources_missing", f"resources folder {source}, named in the run file, does not exist")
        for path in sorted(Path(source).glob("*.y*ml")):
            documents = [_resource(item, valkey, env) for item in yaml.safe_load_all(path.read_text()) if item]
            (target / f"{number}-{path.name}").write_text(yaml.safe_dump_all(documents, sort_keys=False))


def render_configuration(source: str | None, target: Path, names: Path) -> Path | None:
    """Copy the Dapr Configuration `source` to `target`, with the service names kept in the file `names`."""
    if source is None:
        return None
    document = yaml.safe_load(Path(source).read_text())
    resolution = document.get("spec", {}).get("nameResolution", {})
    if resolution.get("component") == "sqlite":
        resolution["configuration"]["connectionString"] = str(names)
    target.write_text(yaml.safe_dump(document, sort_keys=False))
    return target


def _resource(document: dict[str, Any], valkey: str, env: Mapping[str, str]) -> dict[str, Any]:
    spec = document.get("spec", {})
    for entry in spec.get("metadata", []) if document.get("kind") == "Component" else []:
        if entry.get("name") in REDIS_KEYS:
            entry["value"] = valkey
    if spec.get("type") == "conversation.echo" and any(env.get(name) for name in MODEL_VARIABLES):
        spec["type"] = "conversation.openai"
        spec["metadata"] = _model_metadata(env)
    if spec.get("type") == "conversation.openai" and env.get("OPENAI_MODEL"):
        _name_model(spec.setdefault("metadata", []), env["OPENAI_MODEL"])
    return document


def _name_model(metadata: list[dict[str, Any]], model: str) -> None:
    """What a component says itself counts; who says nothing gets what the environment says."""
    if not any(entry.get("name") == "model" for entry in metadata):
        metadata.append({"name": "model", "value": model})


def _model_metadata(env: Mapping[str, str]) -> list[dict[str, str]]:
    """The key stays in the environment; an endpoint on this machine often needs none, but the component does."""
    key = {"envRef": "OPENAI_API_KEY"} if env.get("OPENAI_API_KEY") else {"value": "none"}
    metadata = [{"name": "key", **key}]
    if endpoint := env.get("OPENAI_BASE_URL"):
        metadata.append({"name": "endpoint", "value": endpoint})
    return metadata
