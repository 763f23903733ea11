"""Which ports a platform uses, and that they are free."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from perdure.errors import Conflict

BLOCK = 200
"""Ports set aside for one platform with `--ports`: 10 for servers, 5 for each of 38 services."""

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """The servers' ports. The defaults lie below 32768, where no outgoing connection can sit on them."""

    valkey: int = 16390
    placement: int = 16005
    placement_health: int = 16015
    placement_raft: int = 16025
    scheduler: int = 16006
    scheduler_health: int = 16016
    etcd_client: int = 16026
    etcd_peer: int = 16036

    @classmethod
    def at(cls, base: int) -> ServerPorts:
        """The same servers on consecutive ports from `base`."""
        return cls(*range(base, base + 8))

    def named(self) -> dict[str, int]:
        """Port by what it is for."""
        return {name.replace("_", " "): port for name, port in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class ReplicaPorts:
    """The ports of one service process and its sidecar."""

    app: int
    http: int
    grpc: int
    internal: int
    metrics: int

    @classmethod
    def at(cls, base: int, index: int) -> ReplicaPorts:
        """The ports of the `index`-th replica in the block at `base`."""
        first = base + 10 + 5 * index
        return cls(*range(first, first + 5))

    def shifted(self, by: int) -> ReplicaPorts:
        """For a further replica of the same service."""
        return replace(self, **{name: port + by for name, port in asdict(self).items()})

    def named(self, owner: str) -> dict[str, int]:
        """Port by what it is for."""
        return {f"{owner} {name}": port for name, port in asdict(self).items()}


def free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def require_free(ports: Mapping[str, int]) -> None:
    """Raises: Conflict (code `port_busy`) naming the first busy port and what wanted it."""
    for owner, port in ports.items():
        if not free(port):
            raise Conflict(
                "port_busy",
                f"port {port}, wanted for {owner}, is in use by another program; stop that one "
                f"(`lsof -i :{port}` or `ss -ltnp` names it), or start here with `--ports auto`",
                port=port,
                owner=owner,
            )


@contextlib.contextmanager
def reserved_block() -> Iterator[int]:
    """The first port of a free block that no other platform of this machine takes while this one is open."""
    folder = Path(tempfile.gettempdir()) / f"perdure-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    bases = list(range(20000, 32000, BLOCK))
    random.shuffle(bases)  # only spreads the search; the lock decides
    for base in bases:
        with (folder / str(base)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if all(free(port) for port in range(base, base + BLOCK)):
                yield base
                return
    raise Conflict("no_free_ports", "no block of 200 free ports between 20000 and 32000; stop other platforms")
