"""The service: routes over jobs. It knows of the pipeline only what a job's command says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from forge_cli import __version__
from forge_cli.serve import openapi, problems
from forge_cli.serve.limits import Limited
from forge_cli.serve.observed import Figures, Observed
from forge_cli.serve.openai_form import OpenAIErrors
from forge_cli.serve.routes import ROUTERS
from forge_cli.serve.row_checks import RowChecks
from forge_cli.serve.security import Guard, Headed
from forge_cli.serve.services import Services
from forge_cli.serve.watcher import Watcher


def create_app(found: Services) -> FastAPI:
    """The ASGI app of one server."""
    app = FastAPI(
        title="Forge",
        version=__version__,
        description="Fine-tuning jobs: start, watch, stop, and talk to the result.",
        license_info={"name": "Apache-2.0"},
        lifespan=_watching,
        docs_url=None,  # these load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = found
    app.state.watcher = Watcher(found.store)
    app.state.row_checks = RowChecks()
    app.state.figures = Figures()
    problems.install(app)
    openapi.install(app, found)
    # From the inside out: the last one added sees a request first.
    app.add_middleware(Limited, limits=found.limits)
    app.add_middleware(Guard, found=found)
    app.add_middleware(Observed, figures=app.state.figures)
    app.add_middleware(Headed)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(OpenAIErrors)  # the last to be added is the first to be asked
    return app


@asynccontextmanager
async def _watching(app: FastAPI) -> AsyncIterator[None]:
    await app.state.watcher.start()
    try:
        yield
    finally:
        await app.state.watcher.stop()
