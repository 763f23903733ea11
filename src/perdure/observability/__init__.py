"""Logs, spans and metrics. Nothing here is set up by import; `serving` configures it once at start."""
