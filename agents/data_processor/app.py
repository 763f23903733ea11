"""The service `data-processor`: one step of the sensor pipeline."""

from agents.data_processor.agent import processor

from perdure import App
from perdure.agent.directory import announced

app = App(
    steps=[processor], parts=[announced(processor.name, "Normalises readings.", capabilities=["sensors", "process"])]
)
