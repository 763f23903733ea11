"""The local platform: a Dapr on this machine, the servers it needs, and the services of a `dapr.yaml`.

`Platform` is what `perdure dev up`, the kill tests and the benchmarks share.
"""

from perdure.dev.platform import Platform
from perdure.dev.provision import ensure_runtime
from perdure.dev.runtime import DaprRuntime, find_runtime
from perdure.dev.topology import Replica

__all__ = ["DaprRuntime", "Platform", "Replica", "ensure_runtime", "find_runtime"]
