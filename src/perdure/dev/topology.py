"""What will run: the replicas of each service, with their ports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.dev.ports import LOOPBACK, ReplicaPorts, ServerPorts
from perdure.dev.runfile import AppEntry

REPLICA_STRIDE = 20
"""Distance between the ports of two replicas of one service when `dapr.yaml` fixes them."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One service process and its sidecar. `name` is the app-id, with `-2`, `-3` … for further replicas."""

    name: str
    entry: AppEntry
    ports: ReplicaPorts

    @property
    def app_id(self) -> str:
        """What Dapr calls the service; shared by its replicas."""
        return self.entry.app_id

    @property
    def port(self) -> int:
        """Where the service answers HTTP."""
        return self.ports.app

    @property
    def url(self) -> str:
        """The service's own address, without trailing slash."""
        return f"http://{LOOPBACK}:{self.ports.app}"

    @property
    def dapr_url(self) -> str:
        """The HTTP address of its sidecar, without trailing slash."""
        return f"http://{LOOPBACK}:{self.ports.http}"

    @property
    def sidecar(self) -> str:
        """The name of its sidecar among the processes."""
        return f"{self.name}.sidecar"

    def environment(self) -> dict[str, str]:
        """What `dapr run` would tell the service about itself and its sidecar, and the run file's `env`."""
        return {
            "APP_ID": self.app_id,
            "APP_PORT": str(self.ports.app),
            "APP_PROTOCOL": self.entry.app_protocol,
            "APP_CHANNEL_ADDRESS": LOOPBACK,
            "DAPR_HTTP_PORT": str(self.ports.http),
            "DAPR_GRPC_PORT": str(self.ports.grpc),
            "DAPR_METRICS_PORT": str(self.ports.metrics),
            **self.entry.env,
        }


@dataclass(frozen=True, slots=True)
class Topology:
    """All that one platform runs."""

    servers: ServerPorts
    replicas: tuple[Replica, ...]

    def ports(self) -> dict[str, int]:
        """Every port by what it is for."""
        named = self.servers.named()
        for replica in self.replicas:
            named |= replica.ports.named(replica.name)
        return named


def plan(entries: tuple[AppEntry, ...], counts: Mapping[str, int], base: int | None) -> Topology:
    """Lay services out: on the run file's own ports (`base` None) or in the block that starts at `base`."""
    replicas: list[Replica] = []
    for entry in entries:
        for number in range(counts.get(entry.app_id, 1)):
            name = entry.app_id if number == 0 else f"{entry.app_id}-{number + 1}"
            if base is None:
                ports = _fixed(entry).shifted(number * REPLICA_STRIDE)
            else:
                ports = ReplicaPorts.at(base, len(replicas))
            replicas.append(Replica(name, entry, ports))
    return Topology(ServerPorts() if base is None else ServerPorts.at(base), tuple(replicas))


def _fixed(entry: AppEntry) -> ReplicaPorts:
    return ReplicaPorts(
        app=entry.app_port,
        http=entry.dapr_http_port,
        grpc=entry.dapr_grpc_port,
        internal=entry.dapr_internal_grpc_port,
        metrics=entry.metrics_port,
    )
