"""A state store that is a folder."""

from perdure.sidecar.files.store import FolderStateStore

__all__ = ["FolderStateStore"]
