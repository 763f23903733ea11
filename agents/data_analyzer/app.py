"""The service `data-analyzer`: one step of the sensor pipeline."""

from agents.data_analyzer.agent import analyzer

from perdure import App
from perdure.agent.directory import announced

app = App(steps=[analyzer], parts=[announced(analyzer.name, "Finds anomalies.", capabilities=["sensors", "analyze"])])
