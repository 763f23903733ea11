"""The service `orchestrator`: starts pipeline runs and keeps them going."""

from orchestrator.pipelines import sensors

from perdure import App

app = App(pipelines=[sensors])
