"""The local platform: starts servers, sidecars and services, restarts what dies, leaves nothing behind."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from perdure.clock import Clock, SystemClock, rfc3339
from perdure.dev import commands, environment
from perdure.dev.child import Child, Happening
from perdure.dev.ports import require_free, reserved_block
from perdure.dev.probes import AllProbes, HttpProbe
from perdure.dev.record import ProcessRecord, Record, end_leftovers, mark, read_record, remove_record, write_record
from perdure.dev.rendering import render_configuration, render_resources
from perdure.dev.runfile import read_run_file
from perdure.dev.runtime import DaprRuntime, find_runtime, missing_runtime
from perdure.dev.topology import Replica, Topology, plan
from perdure.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a process; `at_s` is monotonic."""

    at_s: float
    name: str
    what: Happening
    detail: str


class Platform:
    """Valkey, placement, scheduler and the services of a run file with their sidecars, while the `async with` is open.

    Processes are named `valkey`, `placement`, `scheduler`, a service by its app-id (`assistant`; further
    replicas `assistant-2`, …) and its sidecar `assistant.sidecar`. Entering returns when all are ready.
    With `restart`, what dies is started again at once (with growing pauses when it keeps dying).
    `ports`: None takes those of the run file, a number lays everything out from there, "auto" finds a
    free block, so that several platforms run side by side. `resources` replaces the run file's component
    folders. `env` reaches services and sidecars, `service_env` one service by app-id or replica name.

    Raises: Conflict (`already_running`, `port_busy`), NotFound (`runtime_missing`, `service_unknown`),
    Failed (`not_ready`, with the end of the log); then nothing is left running.
    """

    def __init__(
        self,
        home: Path | str = ".perdure",
        *,
        run_file: Path | str = "dapr.yaml",
        ports: int | Literal["auto"] | None = None,
        services: Sequence[str] | None = None,
        replicas: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
        service_env: Mapping[str, Mapping[str, str]] | None = None,
        resources: Path | str | None = None,
        runtime: DaprRuntime | None = None,
        restart: bool = True,
        with_dapr_cli: bool = False,
        ready_within_s: float = 60.0,
        say: Callable[[str], None] = lambda line: None,
        clock: Clock | None = None,
    ) -> None:
        self.home = Path(home).resolve()
        self.events: list[Event] = []
        self._run_file = read_run_file(Path(run_file))
        self._entries = self._run_file.select(tuple(services) if services is not None else None)
        self._ports = ports
        self._counts = dict(replicas or {})
        self._env = environment.with_bytecode({**environment.inherited(), **(env or {})})
        self._service_env = {name: dict(values) for name, values in (service_env or {}).items()}
        self._resources = resources
        self._runtime = runtime
        self._restart = restart
        self._with_dapr_cli = with_dapr_cli
        self._ready_within_s = ready_within_s
        self._say = say
        self._clock = clock or SystemClock()
        self._stack = AsyncExitStack()
        self._children: dict[str, Child] = {}
        self._topology: Topology | None = None
        self._status = "starting"
        self._since = rfc3339(self._clock.now())

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._reserve(stack)
            stack.push_async_callback(self._stop_all)
            await self._start_all()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def topology(self) -> Topology:
        """Ports of servers and replicas."""
        if self._topology is None:
            raise Conflict("not_running", "the platform is not open; use it with `async with`")
        return self._topology

    @property
    def pids(self) -> dict[str, int | None]:
        """The process ids by name; None while a process is down."""
        return {name: child.pid for name, child in self._children.items()}

    def app(self, name: str) -> Replica:
        """The replica `name` with its ports and addresses. Raises: NotFound."""
        for replica in self.topology.replicas:
            if replica.name == name:
                return replica
        raise self._unknown(name, [replica.name for replica in self.topology.replicas])

    async def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Signal process `name` (SIGKILL), return the id it had when it is gone; a restart may follow at once."""
        return await self._child(name).kill(number)

    def signal(self, name: str, number: int) -> None:
        """Signal process `name` and what it started, without waiting: SIGSTOP freezes, SIGCONT thaws."""
        self._child(name).signal(number)

    async def stop(self, name: str) -> None:
        """End process `name` as a deployment would (SIGTERM first); it stays down until `start`."""
        await self._child(name).stop()

    async def start(self, name: str) -> None:
        """Start process `name` if it is down; return when it exists, `ready` tells when it serves."""
        await self._child(name).start()

    async def restart(self, name: str, *, timeout_s: float = 60.0) -> None:
        """Stop process `name`, start it, and return when it is ready again."""
        child = self._child(name)
        await child.stop()
        await child.start()
        await child.ready(timeout_s)

    async def ready(self, *names: str, timeout_s: float = 60.0) -> None:
        """Return when the named processes (all without names) are ready. Raises: Failed (`not_ready`)."""
        chosen = [self._child(name) for name in names or self._children]
        await asyncio.gather(*(child.ready(timeout_s) for child in chosen))

    def log(self, name: str) -> Path:
        """The file with all output of process `name`."""
        return self._child(name).log

    def _reserve(self, stack: AsyncExitStack) -> None:
        """Own the home, choose the ports and the runtime, write what the sidecars read."""
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "logs").mkdir(exist_ok=True)
        stack.enter_context(_owned(self.home))
        self._clean_up_after_a_kill()
        runtime = self._runtime or find_runtime(environment.cache_root())
        if runtime is None:
            raise missing_runtime()
        base = stack.enter_context(reserved_block()) if self._ports == "auto" else self._ports
        self._topology = plan(self._entries, self._counts, base)
        require_free(self._topology.ports())
        for command in (*self._servers(runtime), *self._services(runtime)):
            self._add(command)

    def _servers(self, runtime: DaprRuntime) -> list[commands.Command]:
        ports = self.topology.servers
        return [
            commands.valkey(ports, self.home / "valkey"),
            commands.placement(runtime, ports, self.home),
            commands.scheduler(runtime, ports, self.home / "scheduler"),
        ]

    def _services(self, runtime: DaprRuntime) -> list[commands.Command]:
        replicas = self.topology.replicas
        names = self.home / "names.db"
        names.unlink(missing_ok=True)  # addresses of sidecars that no longer run
        if self._with_dapr_cli:
            probe = AllProbes(tuple(HttpProbe(replica.port, "/readyz") for replica in replicas))
            path = self._run_file.path
            return [commands.dapr_run(runtime, path, path.parent, probe)]
        found: list[commands.Command] = []
        for replica in replicas:
            resources, config = self._rendered(replica, names)
            env = self._env_of(replica)
            found.append(commands.sidecar(runtime, replica, self.topology.servers, resources, config, env))
            found.append(commands.service(replica, env))
        return found

    def _rendered(self, replica: Replica, names: Path) -> tuple[Path, Path | None]:
        entry = replica.entry
        sources = entry.resources_paths if self._resources is None else (str(self._resources),)
        folder = self.home / "resources" / replica.name
        valkey = f"127.0.0.1:{self.topology.servers.valkey}"
        render_resources(sources, folder, valkey, {**self._env, **self._env_of(replica)})
        config = render_configuration(entry.config_file_path, self.home / f"{replica.name}.config.yaml", names)
        return folder, config

    def _env_of(self, replica: Replica) -> dict[str, str]:
        own = self._service_env
        return {**own.get(replica.app_id, {}), **own.get(replica.name, {})}

    def _add(self, command: commands.Command) -> None:
        log = self.home / "logs" / f"{command.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        restart = self._restart and command.name != "dapr-run"
        self._children[command.name] = Child(command, log, self._env, self._clock, self._report, restart=restart)

    async def _start_all(self) -> None:
        self._record()
        servers = ("valkey", "placement", "scheduler")
        for name in servers:
            await self.start(name)
        await self.ready(*servers, timeout_s=self._ready_within_s)
        for name in self._children:
            await self.start(name)
        await self.ready(timeout_s=self._ready_within_s)
        self._status = "ready"
        self._record()

    async def _stop_all(self) -> None:
        """Services before their sidecars, so that they can still write; sidecars before the servers."""
        self._status = "stopping"
        sidecars = {replica.sidecar for replica in self.topology.replicas}
        services = [name for name in self._children if name not in sidecars]
        for layer in (services[3:], sidecars & self._children.keys(), services[1:3], services[:1]):
            await asyncio.gather(*(self._children[name].close() for name in layer))
        remove_record(self.home)

    def _report(self, child: Child, what: Happening, detail: str) -> None:
        name = child.command.name
        self.events.append(Event(self._clock.monotonic(), name, what, detail))
        if self._status == "ready" or what is Happening.DIED:
            again = "again " if what is Happening.STARTED and child.starts > 1 else ""
            self._say(f"{name} {what.value} {again}{detail}")
        self._record()

    def _record(self) -> None:
        processes = tuple(
            ProcessRecord(name, child.pid, child.starts, mark(child.pid) if child.pid else "")
            for name, child in self._children.items()
        )
        me = os.getpid()
        write_record(self.home, Record(me, mark(me), self._status, self._since, self.topology.ports(), processes))

    def _clean_up_after_a_kill(self) -> None:
        if (record := read_record(self.home)) and (ended := end_leftovers(record)):
            self._say(f"ended what a killed platform had left: {', '.join(ended)}")

    def _child(self, name: str) -> Child:
        if name not in self._children:
            raise self._unknown(name, list(self._children))
        return self._children[name]

    def _unknown(self, name: str, known: list[str]) -> NotFound:
        return NotFound("process_unknown", f"'{name}' does not run here; there are: {', '.join(known)}")


def _owned(home: Path) -> ExitStack:
    """Hold the home's lock. Raises: Conflict (code `already_running`)."""
    stack = ExitStack()
    lock = stack.enter_context((home / "dev.lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stack.close()
        record = read_record(home)
        who = f" (process {record.supervisor}, since {record.since})" if record else ""
        raise Conflict(
            "already_running",
            f"a platform already runs in {home}{who}; look with `perdure dev status`, end it with `perdure dev down`, "
            "or start another one with `--home OTHER --ports auto`",
        ) from None
    return stack
