"""What a user's message becomes: a new turn, a word in the running one, or nothing. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.clock import Ids
from perdure.errors import Busy, Conflict, Invalid
from perdure.run.event import Accepted, CancelAsked, Event, Steered
from perdure.run.plan import View
from perdure.turn.rules import OnMessage
from perdure.turn.state import SessionState

MAX_QUEUED = 64
"""Turns that may wait behind the running one: a person types fewer, a loop by mistake types more."""

SESSION_MAX_CHARS = 256
INTERRUPTED = "interrupted by a newer message"


@dataclass(frozen=True, slots=True)
class Ask:
    """A user's message on its way into a session. `kind` is the registered key of the agent's turns."""

    kind: str
    text: str
    session: str
    key: str = ""
    by: str = ""
    trace: str = ""

    @property
    def digest(self) -> str:
        """Of what the key stands for: 32 hex digits."""
        return hashlib.blake2b(self.text.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def accepted(self) -> Accepted:
        """The event that begins the turn."""
        payload = {"text": self.text, "session": self.session}
        digest = self.digest if self.key else ""
        return Accepted(self.kind, dict(payload), self.key, digest, self.by, self.trace)


def session_of(agent: str, session: str | None, key: str | None, ids: Ids) -> str:
    """The session a message belongs to: the one given; else the one that (agent, key) stands for; else a new one.

    Raises: Invalid (codes `session_malformed`, `key_malformed`).
    """
    if session is not None:
        return _checked("session", session)
    if key is not None:
        material = f"{len(agent)}:{agent}{_checked('key', key)}".encode(errors="surrogatepass")
        return f"k-{hashlib.blake2b(material, digest_size=16).hexdigest()}"
    return f"s-{ids.new()}"


def accept(ask: Ask, policy: OnMessage, view: View[SessionState]) -> Sequence[Event] | int:
    """The events to append, or the number of the turn that this message joins.

    Raises: Conflict (`key_reused`: the key stands for another text; `turn_running`: the policy is `reject`),
    Busy (`session_full`).
    """
    control = view.control
    if ask.key:
        use = control.keys.get(ask.key)
        if use is not None and use.digest == ask.digest:
            return use.run
        if use is not None:
            raise Conflict("key_reused", f"key {ask.key!r} was used for another text; use a new key for a new message")
    running = control.current
    if running is None:
        return [ask.accepted()]
    if policy == "reject":
        raise Conflict(
            "turn_running", "a turn is running in this session; wait for its end, then repeat", run=running.n
        )
    if policy == "steer" and running.cancel is None:
        digest = ask.digest if ask.key else ""
        return [Steered(running.n, ask.text, ask.by, ask.key, digest)]
    if len(control.open) > MAX_QUEUED:
        raise Busy("session_full", f"{MAX_QUEUED} turns are waiting in this session; wait for some to end")
    if policy == "interrupt":
        stopped = [CancelAsked(n, INTERRUPTED, ask.by) for n, info in control.open.items() if info.cancel is None]
        return [*stopped, ask.accepted()]
    return [ask.accepted()]


def _checked(what: str, text: str) -> str:
    if not 0 < len(text) <= SESSION_MAX_CHARS or not text.isprintable():
        raise Invalid(f"{what}_malformed", f"a {what} has 1 to {SESSION_MAX_CHARS} printable characters")
    return text
