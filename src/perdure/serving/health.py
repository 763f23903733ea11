"""Whether a service can do its work, and what is missing if not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from perdure.errors import PerdureError
from perdure.serving.service import Service
from perdure.sidecar.ports import StateStore

CHECK_TIMEOUT_S = 2.0
"""A store that answers later than this is of no use to a request; probes give up after some seconds, too."""

OK = "ok"


async def readiness(service: Service) -> Mapping[str, str]:
    """By part (worker, each store, the service itself): `ok`, or what is wrong with it."""
    stores = service.doors.stores
    said = await asyncio.gather(*(_store(store) for store in stores.values()))
    return {
        "service": "stopping" if service.draining.is_set() else OK,
        "worker": OK if service.doors.engine.connected else "not connected to the workflow engine",
        **{f"store {name}": text for name, text in zip(stores, said, strict=True)},
    }


async def _store(store: StateStore) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await store.check()
    except PerdureError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s"
    return OK
