"""Files with compare-and-set among threads and processes. Everything here blocks; call it from a thread.

A value is written whole to a file of its own, flushed to the disk and renamed into place while a
lock file is held, so a reader or a crash sees the old value or the new one, never a part.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from perdure.sidecar.ports import Item

LOCKS = 16


class Stale(Exception):
    """The key does not hold what the writer expected; `found` is what it holds."""

    def __init__(self, found: Item | None) -> None:
        super().__init__("stale")
        self.found = found


class Folder:
    """Keys as files `ab/<hash>`: a line of JSON (key, etag), then the value."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, key: str) -> Item | None:
        """What the key holds. Raises: ValueError when its file is damaged."""
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        head, found, value = content.partition(b"\n")
        header = orjson.loads(head)
        if not found or header["key"] != key:
            raise ValueError(f"{self._path(key)} is not the file of {key!r}")
        return Item(value, header["etag"])

    def write(self, key: str, value: bytes, etag: str, *, expected: str | None) -> None:
        """Write if the key has the etag `expected` (None: is absent). Raises: Stale."""
        with self._prepared(key, value, etag) as prepared, self._locked(key):
            self._require(key, expected)
            self._place(prepared, key)

    def overwrite(self, key: str, value: bytes, etag: str) -> None:
        """Write whatever the key holds."""
        with self._prepared(key, value, etag) as prepared, self._locked(key):
            self._place(prepared, key)

    def remove(self, key: str, expected: str | None) -> None:
        """Delete; absent is fine. Raises: Stale when `expected` is given and the key has another etag."""
        path = self._path(key)
        if not path.exists():
            return
        with self._locked(key):
            if path.exists():
                if expected is not None:
                    self._require(key, expected)
                path.unlink()
                _flush_directory(path.parent)

    def _require(self, key: str, expected: str | None) -> None:
        found = self.read(key)
        if (found.etag if found is not None else None) != expected:
            raise Stale(found)

    def _place(self, prepared: Path, key: str) -> None:
        path = self._path(key)
        prepared.replace(path)
        _flush_directory(path.parent)

    @contextmanager
    def _prepared(self, key: str, value: bytes, etag: str) -> Iterator[Path]:
        """A flushed file beside its place; removed again unless it was moved there."""
        directory = self._path(key).parent
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            _flush_directory(directory.parent)
        handle, name = tempfile.mkstemp(dir=directory, prefix=".new-")
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(orjson.dumps({"key": key, "etag": etag}) + b"\n" + value)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            with suppress(FileNotFoundError):
                path.unlink()

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone among all threads and processes that change keys sharing this key's lock."""
        number = int(self._path(key).name[:8], 16) % LOCKS
        with (self.root / f"lock-{number:02d}").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()[:40]
        return self.root / digest[:2] / digest[2:]


def _flush_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
