"""Whether a service can do its work, and what is missing if not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from perdure.errors import NotFound, PerdureError
from perdure.serving.service import Service
from perdure.sidecar.ports import StateStore

CHECK_TIMEOUT_S = 2.0
"""A store that answers later than this is of no use to a request; probes give up after some seconds, too."""

OK = "ok"
ABSENT = "absent, not needed"
"""Said of a component that this app may not use, and whose absence hinders nothing that it declares."""


async def readiness(service: Service) -> Mapping[str, str]:
    """By part (worker, each store, the service itself): `ok`, or what is wrong with it."""
    stores = service.doors.stores
    said = await asyncio.gather(*(_store(store, name in service.needs) for name, store in stores.items()))
    return {
        "service": "stopping" if service.draining.is_set() else OK,
        "worker": OK if service.doors.engine.connected else "not connected to the workflow engine",
        **{f"store {name}": text for name, text in zip(stores, said, strict=True)},
    }


async def _store(store: StateStore, needed: bool) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await store.check()
    except NotFound as error:
        return error.message if needed else ABSENT
    except PerdureError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:g} s"
    return OK
