"""The service `registry`: who is there, and what they can do."""

from registry.routes import Registry

from perdure import App

registry = Registry()
app = App(routers=[registry.router], parts=[registry.keeping])
