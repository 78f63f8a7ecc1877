"""Every view of the page on a phone, light and dark, and how its files are served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from page_driver import ANSWER, finished, opened, rows, running
from page_server import Served, serve
from playwright.sync_api import Browser, expect

from browser import BROWSER, chromium
from forge_cli.serve.routes.page import FOLDER

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

LONG = "x" * 200
# The least contrast of any text that is shown, with its words.
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const c = rgb(getComputedStyle(node).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
  };
  let least = [21, ""];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
    if (!text || !node.checkVisibility() || node.closest(":disabled, script, noscript")) continue;
    const style = getComputedStyle(node);
    const own = node instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(rgb(own)), light(ground(node))].sort((x, y) => y - x);
    const found = (a + .05) / (b + .05);
    if (found < least[0]) least = [found, text];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as found:
        yield found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_fits_a_phone_and_can_be_read(
    browser: Browser, served: Served, scheme: str
) -> None:
    a = finished(served, f"/repos/{LONG}", 0.5, options={"model": LONG}, tags={LONG: LONG})
    b = running(served, deploy=LONG)
    served.store.append("l", b, f"{LONG}\n{'word ' * 90}\n", 0)
    served.store.append("m", b, rows(*range(1, 50), valid=True), 0)
    failed = running(served, export=True)
    data = {"error": f"no {LONG}", "hint": LONG}
    served.store.add(failed, "ended", attempt=1, state="failed", data=data)
    file = served.home / a / "run" / f"{LONG}.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF")
    served.models, served.says = [LONG], [ANSWER.replace("Document", LONG)]
    views = {
        "#/": "succeeded", f"#/jobs/{a}": "Is it better?", f"#/jobs/{b}": "word word",
        f"#/jobs/{failed}": f"no {LONG}", "#/new": "Afterwards", f"#/compare/{a}/{b}": "answer f1",
        "#/chat": "Ask the model", "#/nowhere": "There is no such page",
    }  # fmt: skip
    with opened(browser, served, width=390, scheme=scheme) as page:
        for where, words in views.items():
            page.evaluate("where => location.hash = where", where)
            expect(page.locator("main").get_by_text(words).first).to_be_attached()
            if where == "#/chat":
                page.get_by_label("Question").fill(LONG)
                page.keyboard.press("Enter")
                expect(page.locator(".final")).to_be_visible()
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, where
            ratio, text = page.evaluate(CONTRAST)
            assert ratio >= 4.5, (where, text)
            assert page.get_by_role("heading", level=1).count() == 1


def test_its_files_are_small_kept_and_closed_to_other_scripts(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        page = client.get("/")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert page.headers["cache-control"] == "no-cache"
        again = client.get("/", headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        version = page.text.split("/static/")[1].split("/")[0]
        sent = int(page.headers["content-length"])
        for file in FOLDER.iterdir():
            lines = file.read_text(encoding="utf-8").splitlines()
            assert len(lines) <= 400
            if file.suffix == ".html":
                continue
            found = client.get(f"/static/{version}/{file.name}")
            assert found.text == file.read_text(encoding="utf-8")
            assert "immutable" in found.headers["cache-control"]
            assert client.get(f"/static/{file.name}").headers["cache-control"] == "no-cache"
            sent += int(found.headers["content-length"])
        assert sent < 60_000
        for path in ("/static/app.py", "/static/0/main.js", "/static/%2e%2e/app.py", "/static/"):
            assert client.get(path).status_code == 404, path
