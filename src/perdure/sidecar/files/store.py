"""The `StateStore` over a folder; file work happens in threads, so the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from perdure.clock import Ids, SystemIds
from perdure.errors import Broken, Conflict, SidecarUnavailable
from perdure.sidecar.files.folder import Folder, Stale
from perdure.sidecar.ports import Item

T = TypeVar("T")
THREADS = 4


class FolderStateStore:
    """One file per key under `folder`, made at the first write; several processes may share it.

    A write that returned survives a power cut. `close` ends its threads.
    """

    def __init__(self, folder: Path | str, name: str = "files", *, ids: Ids | None = None) -> None:
        self.name = name
        self._folder = Folder(Path(folder))
        self._ids: Ids = ids or SystemIds()
        self._threads: ThreadPoolExecutor | None = None

    async def get(self, key: str) -> Item | None:
        return await self._run(lambda: self._folder.read(key))

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Item]:
        def read_all() -> dict[str, Item]:
            read = ((key, self._folder.read(key)) for key in keys)
            return {key: item for key, item in read if item is not None}

        return await self._run(read_all)

    async def create(self, key: str, value: bytes) -> None:
        etag = self._ids.new()
        try:
            await self._run(lambda: self._folder.write(key, value, etag, expected=None))
        except Stale as stale:
            if stale.found is None or stale.found.value != value:
                raise Conflict("key_taken", f"{key!r} in {self.name!r} is taken; read on", key=key) from stale

    async def put(self, key: str, value: bytes, *, etag: str | None = None) -> None:
        fresh = self._ids.new()
        try:
            if etag is None:
                await self._run(lambda: self._folder.overwrite(key, value, fresh))
            else:
                await self._run(lambda: self._folder.write(key, value, fresh, expected=etag))
        except Stale as stale:
            raise self._stale(key) from stale

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        try:
            await self._run(lambda: self._folder.remove(key, etag))
        except Stale as stale:
            raise self._stale(key) from stale

    async def check(self) -> None:
        await self.get("perdure-check")

    async def close(self) -> None:
        """Wait for file work under way and end the threads; the next call begins new ones."""
        threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"store {self.name}")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            message = f"folder {self._folder.root} cannot be used ({error}); check that it is there and has room"
            raise SidecarUnavailable("folder_unavailable", message, store=self.name) from error
        except ValueError as error:
            raise Broken("file_damaged", f"folder {self._folder.root} holds a damaged file: {error}") from error

    def _stale(self, key: str) -> Conflict:
        return Conflict("etag_stale", f"{key!r} in {self.name!r} was changed; reload it", key=key)
