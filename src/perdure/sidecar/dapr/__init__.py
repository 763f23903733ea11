"""The doors to a Dapr sidecar; the only place that imports the Dapr SDK."""
