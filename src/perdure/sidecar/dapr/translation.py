"""What the sidecar's gRPC errors mean to a caller."""

from __future__ import annotations

import re

from grpc import StatusCode
from grpc.aio import AioRpcError

from perdure.errors import Invalid, NotFound, PerdureError, Refused, SidecarUnavailable, Unauthenticated

MISSING = re.compile(r"not (?:configured|found)|failed finding .*(?:store|component)", re.IGNORECASE)


def details(error: AioRpcError) -> str:
    """The sidecar's words, with the code before them."""
    return f"{error.code().name}: {error.details()}"


def definite(error: AioRpcError, kind: str, component: str) -> PerdureError | None:
    """The error that says for certain that nothing was done and repeating is useless; None when it may have been."""
    code, text = error.code(), error.details() or ""
    if code in (StatusCode.FAILED_PRECONDITION, StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND) and MISSING.search(
        text
    ):
        return NotFound(
            "component_unknown",
            f"the sidecar has no {kind} component {component!r} for this app; "
            f"add it to the components folder, or this app's id to its `scopes` ({text})",
            component=component,
        )
    if code is StatusCode.RESOURCE_EXHAUSTED:
        return Invalid("too_large", f"{component!r} refused a message larger than the sidecar's limit ({text})")
    if code is StatusCode.INVALID_ARGUMENT:
        return Invalid("sidecar_rejected", f"the sidecar rejected a request to {component!r}: {text}")
    if code is StatusCode.UNAUTHENTICATED:
        return Unauthenticated("sidecar_token", f"the sidecar wants another API token; set DAPR_API_TOKEN ({text})")
    if code is StatusCode.PERMISSION_DENIED:
        return Refused("sidecar_denied", f"the sidecar denies this app the use of {component!r}: {text}")
    return None


def translated(error: AioRpcError, kind: str, component: str) -> PerdureError:
    """The error to raise for a failed call that may be repeated as it is."""
    certain = definite(error, kind, component)
    if certain is not None:
        return certain
    if error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED):
        message = (
            f"the sidecar did not answer for {component!r} ({details(error)}); it is tried again with the next call"
        )
        return SidecarUnavailable("sidecar_unavailable", message, component=component)
    message = f"{kind} component {component!r} did not do its work ({details(error)}); see the sidecar's log"
    return SidecarUnavailable("component_unavailable", message, component=component)
