"""Pipelines: steps that depend on each other, run here or at other apps, each finished step exactly once."""
