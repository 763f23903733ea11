"""Is the Dapr SDK installed as one piece?

Up to 1.18 the workflow and FastAPI parts were distributions of their own. From 1.19 their files come
with `dapr`, and a separate one that is installed beside it replaces some of them with older ones.
The mix imports well and fails later, in the middle of a run; so it is refused at the start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata

from perdure.errors import Failed

SEPARATE = ("dapr-ext-workflow", "dapr-ext-fastapi", "dapr-ext-grpc", "dapr-ext-langgraph", "dapr-ext-strands")
FIRST_IN_ONE_PIECE = (1, 19)


def require_one_piece(path: Iterable[str] | None = None) -> None:
    """Return when the SDK is whole. `path`: folders to look in instead of `sys.path`.

    Raises: Failed (code `dapr_mixed` or `dapr_missing`) with the command that repairs it.
    """
    versions = _versions(path)
    version = versions.get("dapr")
    if version is None or tuple(int(part) for part in version.split(".")[:2]) < FIRST_IN_ONE_PIECE:
        raise Failed(
            "dapr_missing",
            f"the Dapr SDK is {'missing' if version is None else f'too old ({version})'}; "
            "repair: pip install 'dapr[workflow,fastapi]>=1.19,<1.20'",
        )
    if mixed := [name for name in SEPARATE if name in versions]:
        raise Failed(
            "dapr_mixed",
            f"{', '.join(mixed)} is installed beside dapr {version} and overwrites its files with older ones; "
            f"repair: pip uninstall -y {' '.join(mixed)} && pip install --force-reinstall --no-deps 'dapr=={version}'",
            installed=list(mixed),
        )


def _versions(path: Iterable[str] | None) -> dict[str, str]:
    places = sys.path if path is None else list(path)
    found: dict[str, str] = {}
    for name in ("dapr", *SEPARATE):
        for distribution in metadata.distributions(name=name, path=places):
            found[name] = distribution.version
    return found
