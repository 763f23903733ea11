"""The service `data-collector`: one step of the sensor pipeline."""

from agents.data_collector.agent import collector

from perdure import App
from perdure.agent.directory import announced

app = App(
    steps=[collector], parts=[announced(collector.name, "Reads the sensors.", capabilities=["sensors", "collect"])]
)
