"""The service `alert-manager`: one step of the sensor pipeline."""

from agents.alert_manager.agent import manager

from perdure import App
from perdure.agent.directory import announced

app = App(steps=[manager], parts=[announced(manager.name, "Raises alerts.", capabilities=["sensors", "alert"])])
