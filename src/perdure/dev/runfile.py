"""`dapr.yaml` as this platform understands it: the keys of Dapr's multi-app run file that it acts on.

A key it does not know is refused, never skipped: a service that silently runs without its
health check is worse than a message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perdure.errors import Invalid, NotFound


class _Shared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    resources_paths: tuple[str, ...] = Field((), alias="resourcesPaths")
    config_file_path: str | None = Field(None, alias="configFilePath")
    env: dict[str, str] = Field(default_factory=dict)
    log_level: str = Field("info", alias="logLevel")
    app_protocol: str = Field("http", alias="appProtocol")
    app_max_concurrency: int | None = Field(None, alias="appMaxConcurrency")
    max_body_size: str | None = Field(None, alias="maxBodySize")
    read_buffer_size: str | None = Field(None, alias="readBufferSize")
    enable_app_health_check: bool = Field(False, alias="enableAppHealthCheck")
    app_health_check_path: str | None = Field(None, alias="appHealthCheckPath")
    app_health_probe_interval: int | None = Field(None, alias="appHealthProbeInterval")
    app_health_probe_timeout: int | None = Field(None, alias="appHealthProbeTimeout")
    app_health_threshold: int | None = Field(None, alias="appHealthThreshold")
    enable_api_logging: bool = Field(False, alias="enableApiLogging")
    # The next four speak to `dapr run` only: this platform knows its own servers and logs to files.
    placement_host_address: str | None = Field(None, alias="placementHostAddress")
    scheduler_host_address: str | None = Field(None, alias="schedulerHostAddress")
    daprd_log_destination: str | None = Field(None, alias="daprdLogDestination")
    app_log_destination: str | None = Field(None, alias="appLogDestination")


class AppEntry(_Shared):
    """One service; `common` is already merged in and paths are absolute."""

    app_id: str = Field(alias="appID", pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
    app_dir_path: str = Field(".", alias="appDirPath")
    app_port: int = Field(alias="appPort")
    dapr_http_port: int = Field(alias="daprHTTPPort")
    dapr_grpc_port: int = Field(alias="daprGRPCPort")
    dapr_internal_grpc_port: int = Field(alias="daprInternalGRPCPort")
    metrics_port: int = Field(alias="metricsPort")
    command: tuple[str, ...] = Field(min_length=1)


class RunFile(BaseModel):
    """A whole `dapr.yaml`, read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    apps: tuple[AppEntry, ...]

    def select(self, names: tuple[str, ...] | None) -> tuple[AppEntry, ...]:
        """The named services in file order, all for None. Raises: NotFound."""
        if names is None:
            return self.apps
        known = {app.app_id for app in self.apps}
        for name in names:
            if name not in known:
                raise NotFound(
                    "service_unknown", f"service '{name}' is not in {self.path}; there are: {', '.join(sorted(known))}"
                )
        return tuple(app for app in self.apps if app.app_id in names)


def read_run_file(path: Path) -> RunFile:
    """Read and check `path`. Raises: NotFound, Invalid (the message names the key)."""
    try:
        document = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise NotFound(
            "run_file_missing", f"{path} does not exist; run this in the project's folder or name it with --file"
        ) from None
    except yaml.YAMLError as error:
        raise Invalid("run_file_malformed", f"{path} is not YAML: {error}") from error
    try:
        return _checked(path.resolve(), document)
    except ValidationError as error:
        # A misspelt key is also a missing one; the unknown name is what the person wrote.
        first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"])
        raise Invalid(
            "run_file_invalid",
            f"{path}: {where or 'document'}: {first['msg']}; correct it; not every key of `dapr run` is known here",
        ) from error


def _checked(path: Path, document: Any) -> RunFile:
    if not isinstance(document, dict) or not isinstance(document.get("apps"), list):
        raise Invalid("run_file_invalid", f"{path}: needs a list `apps`")
    unknown = set(document) - {"version", "common", "apps", "name"}
    if unknown:
        raise Invalid("run_file_invalid", f"{path}: unknown key '{sorted(unknown)[0]}'")
    common = document.get("common") or {}
    return RunFile(path=path, apps=tuple(_entry(path.parent, common, app) for app in document["apps"]))


def _entry(folder: Path, common: dict[str, Any], app: dict[str, Any]) -> AppEntry:
    app_dir = (folder / str(app.get("appDirPath", "."))).resolve()
    merged = {**common, **app, "env": {**common.get("env", {}), **app.get("env", {})}}
    merged["env"] = {key: str(value) for key, value in merged["env"].items()}
    merged["appDirPath"] = str(app_dir)
    if paths := merged.get("resourcesPaths"):
        origin = app_dir if "resourcesPaths" in app else folder
        merged["resourcesPaths"] = [str((origin / item).resolve()) for item in paths]
    if config := merged.get("configFilePath"):
        merged["configFilePath"] = str(((app_dir if "configFilePath" in app else folder) / config).resolve())
    return AppEntry.model_validate(merged)
