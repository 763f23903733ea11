"""Sizes that decide how a log is cut up."""

from __future__ import annotations

from dataclasses import dataclass

REPLY_BYTES = 3 * 1024 * 1024
"""What one bulk read may bring at most; the sidecar refuses messages above 4 MiB."""

_ENVELOPE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class LogLimits:
    """All sizes in bytes as stored, before compression; `snapshot_bytes` after it."""

    segment_commits: int = 64
    segment_bytes: int = 512 * 1024
    blob_bytes: int = 64 * 1024
    blob_part_bytes: int = 1024 * 1024
    snapshot_bytes: int = 64 * 1024
    first_page_commits: int = 4
    page_commits: int = 16

    @property
    def largest_page(self) -> int:
        """How many commits may be asked for at once when all are as large as a commit can be."""
        return max(1, min(self.page_commits, REPLY_BYTES // (self.blob_bytes + _ENVELOPE_BYTES)))

    @property
    def segment_probe(self) -> int:
        """How many segment keys may be asked for at once: closed by bytes, they lie several commits apart."""
        apart = max(1, self.segment_bytes // self.blob_bytes)
        return max(1, REPLY_BYTES // (self.segment_bytes + self.snapshot_bytes)) * apart
