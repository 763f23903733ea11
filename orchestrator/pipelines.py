"""The pipelines that this service runs."""

from __future__ import annotations

from perdure import Pipeline

sensors = Pipeline("sensors")
sensors.remote("collect", "data-collector", effect="idempotent")
sensors.remote("process", "data-processor", effect="idempotent", depends_on=["collect"])
sensors.remote("analyze", "data-analyzer", effect="idempotent", depends_on=["process"])
sensors.remote("alert", "alert-manager", effect="idempotent", depends_on=["analyze"])
