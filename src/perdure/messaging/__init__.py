"""Messages between steps and agents: one shape at every hop."""
