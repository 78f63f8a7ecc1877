"""The service: routes over jobs. It knows of the pipeline only what a job's command says."""

from __future__ import annotations

from fastapi import FastAPI

from forge_cli import __version__
from forge_cli.serve import problems
from forge_cli.serve.routes import ROUTERS
from forge_cli.serve.services import Services


def create_app(found: Services) -> FastAPI:
    """The ASGI app of one server."""
    app = FastAPI(
        title="Forge",
        version=__version__,
        description="Fine-tuning jobs: start, watch, stop, and talk to the result.",
        license_info={"name": "Apache-2.0"},
    )
    app.state.services = found
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
