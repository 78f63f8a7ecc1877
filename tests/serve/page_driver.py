"""The page in Chromium, over jobs that a test writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from page_server import Served
from playwright.sync_api import Browser, Page

from forge_cli.serve.jobs.job import Spec

ANSWER = (
    "##Reason: Document [1] sets it.\n##begin_quote##\n    limit = 3\n##end_quote##\n"
    "##begin_quote##\nlimit = 4\n##end_quote##\n"
    "##Answer: 3 <script>document.title = 'taken'</script><img src=x>"
)


@contextmanager
def opened(
    browser: Browser, served: Served, where: str = "#/", width: int = 1280, scheme: Any = "light"
) -> Iterator[Page]:
    """The page; at the end nothing in it may have failed, nor asked for anything elsewhere."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(10_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text))
    page.on("request", lambda asked: faults.extend([asked.url] * (served.url not in asked.url)))
    page.goto(f"{served.url}/{where}")
    yield page
    page.close()
    # The browser says on its console that an answer was an error or none, which is what is tested.
    quiet = ("Failed to load resource", "net::ERR_")
    assert not [one for one in faults if not any(words in one for words in quiet)]


def running(served: Served, source: str = "/repos/shop", **spec: Any) -> str:
    job_id = served.store.create(Spec(source=source, **spec))[0].id
    served.store.add(job_id, "claimed", worker="mini")
    return job_id


def rows(*steps: int, valid: bool = False) -> str:
    told: list[dict[str, Any]] = []
    for step in steps:
        told.append({"step": step, "loss": 4 / (step + 1), "seconds": 2.0, "step_bytes": 2e9})
        told[-1] |= {"peak_bytes": 3_000_000_000, "tokens": 100} | (
            {"valid_loss": 3 / (step + 1)} if valid else {}
        )
    return "".join(json.dumps(row) + "\n" for row in told)


def result(tuned: float) -> dict[str, Any]:
    found = {"base": 0.2, "tuned": tuned, "difference": tuned - 0.2, "low": 0.1, "high": 0.6}
    metrics = {
        "train": {"best_valid_loss": 0.5},
        "eval": {"raft": {"answer_f1": found | {"n": 40, "verdict": "better"}}},
        "verdict": {"outcome": "better"},
    }
    return {"record": "run", "path": "run", "model": "m", "metrics": metrics}


def finished(served: Served, source: str, tuned: float, **spec: Any) -> str:
    job_id = running(served, source, **spec)
    served.store.append("m", job_id, rows(*range(1, 4), valid=True), 0)
    served.store.add(
        job_id, "ended", attempt=1, state="succeeded", data={"result": result(tuned)}
    )  # fmt: skip
    return job_id
