"""The service `assistant`: an agent with three tools."""

from agents.assistant.agent import front_desk

from perdure import App
from perdure.agent.directory import announced

app = App(agents=[front_desk], parts=[announced(front_desk)])
