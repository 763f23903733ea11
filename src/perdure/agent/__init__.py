"""The agent: its declaration, its card, and where agents find each other."""
