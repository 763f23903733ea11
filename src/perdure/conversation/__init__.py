"""What was said in a session, and how much of it a model is shown."""

from perdure.conversation.message import Message, Role
from perdure.conversation.transcript import exchanges, valid
from perdure.conversation.window import newest, shown

__all__ = ["Message", "Role", "exchanges", "newest", "shown", "valid"]
