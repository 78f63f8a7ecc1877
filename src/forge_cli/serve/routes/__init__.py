"""One file for each group of routes; each has a `router`."""

from fastapi import APIRouter

from forge_cli.serve.routes import health, jobs, openai, output, page, prometheus

ROUTERS: list[APIRouter] = [
    health.router, prometheus.router, jobs.router, output.router, page.router,
    openai.router,
]  # fmt: skip
