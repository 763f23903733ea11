"""Durable agents beside a Dapr sidecar."""
