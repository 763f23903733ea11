"""Secrets given by the caller."""

from __future__ import annotations

from collections.abc import Mapping

from perdure.errors import NotFound


class MemorySecrets:
    """Secret texts by store and name."""

    def __init__(self, stores: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._stores = {store: dict(secrets) for store, secrets in (stores or {}).items()}

    async def get(self, store: str, name: str) -> str:
        try:
            return self._stores[store][name]
        except KeyError:
            raise NotFound(
                "secret_unknown", f"secret {name!r} is not in secret store {store!r}; add it there", store=store
            ) from None
