"""The turn: what a user says, what the model and its tools make of it, and the answer."""

from perdure.turn.accept import Ask, accept, session_of
from perdure.turn.describe import session_json
from perdure.turn.kind import TurnKind
from perdure.turn.rules import OnMessage, TurnAgent, TurnDefaults, TurnRules
from perdure.turn.state import SessionState

__all__ = [
    "Ask",
    "OnMessage",
    "SessionState",
    "TurnAgent",
    "TurnDefaults",
    "TurnKind",
    "TurnRules",
    "accept",
    "session_json",
    "session_of",
]
