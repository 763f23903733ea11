"""The assistant: takes notes, books rooms."""

from __future__ import annotations

from agents.assistant.tools import book_room, list_notes, write_note

from perdure import DurableAgent, Settings, load_settings
from perdure.llm.offline import OfflineModel, Rule

RULES = (
    Rule(
        "book_room",
        r"\bbook (?:a |the )?room (?P<room>\w+) (?:for|on) (?P<night>\d{4}-\d{2}-\d{2})",
        "book room Fram for 2026-01-31",
    ),
    Rule("write_note", r"(?P<text>[^.;?!]+)[.;?!]\s*note (?:it|this|that) down\b", "the door sticks; note it down"),
    Rule(
        "write_note",
        r"\bnote (?:that |down )?(?!(?:it|this|that|down)\b)(?P<text>[^.;]+)",
        "note that the key is under the mat",
    ),
    Rule("list_notes", r"\b(?:list|show|read)\b[^.;]*\bnotes\b", "list my notes", lambda match: {}),
)


def assistant(settings: Settings) -> DurableAgent:
    """With a key or a server for a model the component `chat`, else a model that needs no network."""
    configured = settings.llm.openai_api_key or settings.llm.openai_base_url
    return DurableAgent(
        "assistant",
        role="Front desk assistant",
        instructions="Be brief. Use the tools to take notes and to book rooms; say what they answered.",
        description="Takes notes and books rooms.",
        model=f"component:{settings.stores.chat}" if configured else OfflineModel(RULES),
        tools=[list_notes, write_note, book_room],
    )


front_desk = assistant(load_settings())
