"""The judge's page in a real browser: at the width of a phone and of a desk, and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from browser import BROWSER, chromium
from forge_cli.core.answer_form import ABSTAIN
from forge_cli.evaluate.pairing import Pair
from forge_cli.evaluate.report import render
from forge_cli.evaluate.statistics import compare
from forge_cli.evaluate.statistics.verdict import Verdict

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

LONG = "x" * 300
RIGHT = "##Reason: r\n##begin_quote##\nlimit = 3\n##end_quote##\n##Answer: 3"
MADE_UP = "##Reason: r\n##begin_quote##\nlimit = 4\n##end_quote##\n##Answer: 4"


def row(number: int, condition: str, kind: str, tuned: str) -> dict[str, Any]:
    won = float(tuned == RIGHT)
    documents = [
        {"path": f"{LONG}.py", "symbol": "limit", "text": f"limit = 3  # {LONG}", "oracle": True},
        {"path": "b.py", "symbol": None, "text": "other = 4", "oracle": False},
    ]
    return {
        "id": str(number), "condition": condition, "kind": kind, "path": f"f{number}.py",
        "question": f"What is `{LONG if number == 0 else 'limit'}`?", "reference": RIGHT,
        "documents": documents,
        "sides": {
            "base": {"text": ABSTAIN, "exact_match": 0.0, "answer_f1": 0.0},
            "tuned": {"text": tuned, "exact_match": won, "answer_f1": won},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row(n, "given", "default" if n % 2 else "purpose", RIGHT) for n in range(6)]
    rows += [row(n, "reworded", "default", MADE_UP) for n in range(6, 10)]
    files = [f"f{n}.py" for n in range(12)]
    found = compare(
        [0.1] * 12, [0.4 + n / 50 for n in range(12)], files, lower_is_better=False,
        resamples=1000, seed=0,
    )  # fmt: skip
    pairs = [Pair(c, "answer_f1", "base", "tuned", found) for c in ("given", "reworded")]
    rate = {"rate": 0.5, "low": 0.2, "high": 0.8, "n": 6}
    own = {
        "n": 6, "files": 6, "abstention": {"precision": rate, "recall": rate},
        "rates": {name: rate for name in ("exact_match", "quote_correct", "abstention")},
    }  # fmt: skip
    sides = {name: {"given": own, "reworded": own} for name in ("base", "tuned")}
    verdict = Verdict(outcome="better", reasons=["given.answer_f1: 0.1 → 0.5"])
    trained = [{"step": n, "loss": 2 / (n + 1)} for n in range(1, 30)]
    trained[10]["valid_loss"] = 0.3
    file = tmp_path_factory.mktemp("page") / "report.html"
    facts = {"command": f"forge eval {LONG}"}
    others = [replace(pair, side="out/m.gguf") for pair in pairs]
    file.write_text(
        render(
            rows, sides, [*pairs, *others], verdict, facts, trained, deciding=[("base", "tuned")]
        )
    )
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def opened(browser: Browser, file: Path, width: int) -> tuple[Page, list[str]]:
    """The page, and what went wrong in it: errors, and requests to anything but itself."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda asked: faults.extend([asked.url] * (asked.url != file.as_uri())))
    page.goto(file.as_uri())
    return page, faults


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_needs_nothing_else(browser: Browser, page_file: Path, width: int) -> None:
    page, faults = opened(browser, page_file, width)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    title = page.get_by_role("heading", level=1).inner_text()
    assert title == "Is the tuned model better? better"
    assert page.get_by_text("answer f1, documents as given: 0.1 → 0.5").is_visible()
    assert page.get_by_text("the base with the trained adapters").is_visible()
    shown = page.locator("details:has(svg) > summary").all_inner_texts()
    assert shown == ["base → tuned", "base → m.gguf"], "what decides goes first"
    assert page.locator("mark.right").first.inner_text() == "limit = 3"
    assert page.locator("mark.madeup").count() == 4
    picture = page.get_by_role("img", name="Differences from base to tuned")
    assert picture.get_by_text("documents as given").is_visible()
    # The middle of the interval stands right of zero.
    zero = picture.get_by_text("0.0", exact=True).bounding_box()
    dots = [dot.bounding_box() for dot in picture.locator("use").all()]
    assert zero and len(dots) == 2
    assert all(dot and dot["x"] > zero["x"] + zero["width"] for dot in dots)
    curves = page.get_by_role("img", name="Loss in training and in validation by step")
    assert curves.get_by_text("validation").is_visible()
    assert not faults
    page.close()


def test_answers_are_filtered_by_condition_kind_and_winner(
    browser: Browser, page_file: Path
) -> None:
    page, faults = opened(browser, page_file, 1280)
    shown = page.locator(".row:visible")
    assert shown.count() == 10
    page.get_by_label("Condition").select_option("given")
    assert shown.count() == 6
    page.get_by_label("Kind").select_option("default")
    assert shown.count() == 3
    assert page.locator("#count").inner_text() == "3 answers"
    page.get_by_label("Condition").select_option("")
    page.get_by_label("Best").select_option("tuned")
    assert shown.count() == 3
    page.get_by_label("Best").select_option("-")
    assert shown.count() == 4
    assert not faults
    page.close()


def test_an_answer_opens_by_keyboard(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file, 1280)
    first = page.locator(".row").first
    assert not first.locator(".answers").is_visible()
    page.get_by_label("Best").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert first.locator(".answers").is_visible()
    assert first.locator("h3").all_inner_texts() == ["Reference", "base", "tuned"]
    page.close()
