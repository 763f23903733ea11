"""Errors. The branch says what the caller does next; `code` is stable and may be matched on.

Adapters translate foreign exceptions into these at the door, so nothing above `sidecar/`
ever meets a gRPC or HTTP library's own exception.
"""

from __future__ import annotations

from typing import Any, ClassVar


class PerdureError(Exception):
    """Root of every error raised by perdure.

    `message` names the thing and the next step, `code` is stable, `details` are plain JSON values.
    """

    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.code, self.message, self.details))


def _rebuild(cls: type[PerdureError], code: str, message: str, details: dict[str, Any]) -> PerdureError:
    return cls(code, message, **details)


class Transient(PerdureError):
    """Wait and repeat the identical call. `details["retry_after_s"]`, when given, is a hint."""

    status = 503
    retryable = True


class SidecarUnavailable(Transient, ConnectionError):
    """The Dapr sidecar (or the store behind it) did not answer in bounded time."""


class Busy(Transient):
    """The replica drives as many runs as it may (429): repeat after `retry_after_s`."""

    status = 429


class Conflict(PerdureError):
    """Somebody else wrote first, or the key means other work: reload, decide anew."""

    status = 409


class Invalid(PerdureError, ValueError):
    """The request is wrong; correct it. Nothing was changed."""

    status = 400


class Refused(PerdureError):
    """Not allowed; obtain permission."""

    status = 403


class Unauthenticated(Refused):
    """No or a wrong credential."""

    status = 401


class NotFound(PerdureError, KeyError):
    """The named thing does not exist."""

    status = 404

    def __str__(self) -> str:
        return self.message


class Failed(PerdureError):
    """The work itself failed; tell the user or the model."""

    status = 422


class Broken(PerdureError):
    """Something that must not happen did; call a maintainer. The subject is parked, not continued."""

    status = 500
