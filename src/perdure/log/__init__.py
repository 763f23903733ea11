"""The log: gapless, append-only history of one subject, one state key per commit."""
