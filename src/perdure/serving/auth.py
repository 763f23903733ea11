"""Who may call, and who called."""

from __future__ import annotations

import hmac

from perdure.errors import Unauthenticated

TOKEN_HEADER = b"dapr-api-token"
CALLER_HEADER = b"dapr-caller-app-id"

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Answered without a token: who asks whether the service lives (a kubelet, a load balancer) has none,
and the answers say nothing about anybody's work."""

UNVERIFIED = "unverified:"
LONGEST_CALLER = 256


class Gate:
    """Checks the token that the sidecar sends with everything (`APP_API_TOKEN`), when one is set."""

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None

    def check(self, path: str, given: bytes | None) -> None:
        """Return if a request for `path` may pass. Compares in constant time.

        Raises: Unauthenticated (codes `token_missing`, `token_wrong`).
        """
        if self._token is None or path in OPEN_PATHS:
            return
        if given is None:
            raise Unauthenticated(
                "token_missing", "this service answers its sidecar only; call through Dapr or send dapr-api-token"
            )
        if not hmac.compare_digest(given, self._token):
            raise Unauthenticated("token_wrong", "the dapr-api-token is not the one that this service expects")

    def caller(self, said: bytes | None) -> str:
        """The app that called, as its sidecar says; marked as unverified where no token proves the sidecar."""
        if not said:
            return ""
        name = said.decode("latin-1")[:LONGEST_CALLER]
        return name if self._token is not None else UNVERIFIED + name
