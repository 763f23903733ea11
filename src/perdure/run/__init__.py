"""The run: fold, decide, do. What every kind (turn, pipeline, orchestration) has in common."""
