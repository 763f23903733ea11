"""The doors in one process, without Dapr: for scripts, notebooks and tests."""

from perdure.sidecar.memory.bus import MemoryBroker, MemoryBus
from perdure.sidecar.memory.chat import ChatFunction, MemoryChat
from perdure.sidecar.memory.engine import MemoryEngine
from perdure.sidecar.memory.invoker import MemoryInvoker
from perdure.sidecar.memory.jobs import MemoryJobs
from perdure.sidecar.memory.secrets import MemorySecrets
from perdure.sidecar.memory.sidecar import MemoryNetwork, MemorySidecar
from perdure.sidecar.memory.store import MemoryStateStore

__all__ = [
    "ChatFunction",
    "MemoryBroker",
    "MemoryBus",
    "MemoryChat",
    "MemoryEngine",
    "MemoryInvoker",
    "MemoryJobs",
    "MemoryNetwork",
    "MemorySecrets",
    "MemorySidecar",
    "MemoryStateStore",
]
