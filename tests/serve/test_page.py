"""The service's page in a real browser, over real jobs: live, by keyboard, and said aloud."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_driver import ANSWER, finished, opened, rows, running
from page_server import Served, serve
from playwright.sync_api import Browser, Page, expect

from browser import BROWSER, chromium
from forge_cli.core.answer_form import SYSTEM, show_documents
from forge_cli.core.records import Document
from forge_cli.serve.jobs.job import Spec

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path) as found:
        yield found


def test_the_list_is_live(browser: Browser, served: Served) -> None:
    with opened(browser, served) as page:
        expect(page.get_by_role("heading", name="No jobs yet")).to_be_visible()
        expect(page.get_by_role("link", name="Start the first job")).to_be_visible()
        first = running(served)
        second = served.store.create(Spec(source="/repos/docs"))[0].id
        line = page.get_by_role("row", name=second)
        expect(line).to_contain_text("queued")
        names = page.locator("tbody tr td.job a").all_inner_texts()
        assert names == ["docs", "shop"], "the newest first"
        served.store.put(f"p:{first}", {"stage": "training", "done": 30, "total": 120})
        bar = page.get_by_role("progressbar", name="training of shop")
        expect(bar).to_have_attribute("value", "0.25")
        served.store.add(second, "cancel")
        expect(line).to_contain_text("cancelled")
        expect(page.get_by_role("status")).to_have_text(f"docs, {second}: cancelled")
        page.get_by_label("State", exact=True).select_option("running")
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="shop").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("shop")


def test_a_job_grows_and_resumes_where_its_stream_broke(browser: Browser, served: Served) -> None:
    job = running(served, deploy="shop")
    served.store.append("m", job, rows(1, 2, 3), 0)
    lines = "".join(f"line {n}\n" for n in range(60))
    served.store.append("l", job, lines, 0)
    served.store.put(
        f"p:{job}",
        {"stage": "training", "done": 3, "total": 63, "detail": "loss 1 · 2:00 min left"},
    )
    with opened(browser, served, f"#/jobs/{job}") as page:
        curve = page.get_by_role("img", name="Loss, nats a token")
        expect(curve).to_have_attribute("aria-label", name_of("training", 2, 1, 1, 3))
        assert len(points(page)) == 3
        log = page.get_by_role("log", name="Log")
        expect(log).to_contain_text("line 59")
        assert at_end(log)
        expect(page.get_by_role("listitem").filter(has_text="train")).to_have_attribute(
            "aria-current", "step"
        )
        stages = page.locator(".stages li").evaluate_all("all => all.map(one => one.className)")
        assert stages == ["done"] * 3 + ["now"] + ["todo"] * 3
        expect(page.get_by_text("training 3/63 · loss 1 · 2:00 min left")).to_be_visible()

        served.store.append("m", job, rows(4, valid=True), 1)
        served.store.append("l", job, "line 60\n", 1)
        expect(curve).to_have_attribute("aria-label", name_of("training", 2, 1, 0.8, 4))
        assert len(points(page)) == 4
        expect(page.get_by_text("0.600 at step 4")).to_be_visible()
        expect(log).to_contain_text("line 60")
        assert at_end(log)
        # Who reads further up is left there.
        log.evaluate("one => one.scrollTop = 0")
        expect(page.get_by_label("Follow")).not_to_be_checked()

        asked: list[str] = []
        page.on("request", lambda one: asked.append(one.headers.get("last-event-id", "")))
        served.stop()
        served.store.append("l", job, "after the cut\n", 2)
        served.start()
        expect(log).to_contain_text("after the cut")
        assert set(asked) == {"2.2.2"}, "it goes on where it was"
        assert log.inner_text().split("\n")[:62] == [
            *(lines + "line 60").split("\n"),
            "after the cut",
        ]
        assert log.evaluate("one => one.scrollTop") == 0
        curve.focus()
        page.keyboard.press("End")
        expect(page.get_by_text("step 4: training 0.800 · validation 0.600")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_text("step 3: training 1 ·")).to_be_visible()


def name_of(curve: str, first: float, step: int, last: float, end: int) -> Any:
    shown = [f"{v:.3f}" if v % 1 else f"{v:.0f}" for v in (first, last)]
    told = f"{curve}: from {shown[0]} at step {step} to {shown[1]} at step {end}"
    return re.compile(re.escape(told))


def points(page: Page) -> list[str]:
    drawn = page.locator("polyline.train").first
    return (drawn.get_attribute("points") or "").split()


def at_end(log: Any) -> bool:
    return bool(log.evaluate("o => o.scrollTop + o.clientHeight >= o.scrollHeight - 8"))


def test_a_job_is_cancelled_by_keyboard_alone(browser: Browser, served: Served) -> None:
    job = running(served)
    with opened(browser, served, f"#/jobs/{job}") as page:
        cancel = page.get_by_role("button", name="Cancel", exact=True)
        expect(cancel).to_be_visible()
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Skip to content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        for _ in range(8):
            page.keyboard.press("Tab")
            if cancel.evaluate("one => one === document.activeElement"):
                break
        assert cancel.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Cancel shop?")
        keep = dialog.get_by_role("button", name="Keep it")
        expect(keep).to_be_focused()
        for _ in range(4):  # the focus stays within
            page.keyboard.press("Tab")
            assert page.evaluate(
                "document.activeElement === document.body || "
                "Boolean(document.activeElement.closest('dialog'))"
            )
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(cancel).to_be_focused()
        assert served.job(job).wanted == "run"
        page.keyboard.press("Enter")
        keep.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_text("is being cancelled").first).to_be_visible()
        assert served.job(job).wanted == "cancel"
        expect(cancel).to_be_disabled()
        served.store.add(job, "released", attempt=1)
        expect(page.get_by_role("button", name="Retry")).to_be_visible()
        page.get_by_role("button", name="Retry").press("Enter")
        expect(page.locator("h1 + span")).to_have_text("queued")
        page.get_by_role("button", name="Pause").press("Enter")
        page.get_by_role("button", name="Resume").press("Enter")
        expect(page.get_by_text("waits for its next try", exact=True)).to_be_visible()
        kinds = [event.kind for event in served.store.events(job)][-3:]
        assert kinds == ["retried", "pause", "resumed"]


def test_a_job_that_is_over_is_removed_by_keyboard(browser: Browser, served: Served) -> None:
    open_, over = running(served), finished(served, "/repos/docs", 0.5)
    (served.home / over / "run").mkdir(parents=True)
    with opened(browser, served, f"#/jobs/{open_}") as page:
        remove = page.get_by_role("button", name="Remove", exact=True)
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        expect(remove).to_have_count(0)
        # The files of what runs elsewhere are there, which is said.
        expect(page.get_by_text(f"{open_} ran on mini, where its files are.")).to_be_visible()
        page.goto(f"{served.url}/#/jobs/{over}")
        remove.press("Enter")
        dialog = page.get_by_role("dialog", name="Remove docs?")
        expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog).to_have_count(0)
        expect(remove).to_be_focused()
        assert not served.job(over).removed
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
        expect(page.get_by_role("link", name="shop")).to_be_visible()
        expect(page.get_by_role("link", name="docs")).to_have_count(0)
    assert served.job(over).removed and not (served.home / over).exists()


def test_what_is_wrong_is_said_at_its_field(browser: Browser, served: Served) -> None:
    with opened(browser, served, "#/new") as page:
        send = page.get_by_role("button", name="Start the job")
        source, steps = page.get_by_label("Source"), page.get_by_label("Steps", exact=True)
        send.click()
        expect(source).to_have_attribute("aria-invalid", "true")
        expect(source).to_be_focused()
        source.fill("/etc")
        expect(source).not_to_have_attribute("aria-invalid", "true")
        steps.fill("0")
        send.click()
        expect(source).to_have_accessible_description(
            "source /etc: not in a folder that this server may read. start it with --allow FOLDER "
            "A folder that the server may read, or a git URL of an allowed host: /repos/shop, "
            "https://github.com/me/shop, https://github.com/me/shop#branch"
        )
        source.fill(str(served.home))
        send.click()
        expect(steps).to_be_focused()
        expect(page.locator(".error:not(:empty)")).to_have_count(1)
        expect(page.locator(".error:not(:empty)")).to_contain_text("greater than or equal to 1")
        steps.fill("12")
        page.get_by_text("More options").click()
        page.get_by_label("Settings").fill("rank: 8\nrnak: 9")
        send.click()
        expect(page.get_by_label("Settings")).to_be_focused()
        expect(page.get_by_text("options.rnak: unknown setting")).to_be_visible()
        page.get_by_label("Settings").fill('rank: 8\nlang: ["python"]')
        page.get_by_label("Write a GGUF").check()
        page.get_by_label("Priority").fill("5000")
        send.click()
        expect(page.get_by_label("Priority")).to_be_focused()
        page.get_by_label("Priority").fill("-5")
        send.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(served.home.name)
    (job,) = served.store.page(10)
    assert job.spec.options == {"rank": 8, "lang": ["python"], "steps": 12}
    assert (job.spec.export, job.spec.priority) == (True, -5)


def test_a_job_trains_on_a_file_that_is_sent(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    wrong, right = tmp_path / "wrong.jsonl", tmp_path / "right.jsonl"
    wrong.write_text("no JSON\n")
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    right.write_text((json.dumps({"messages": chat}) + "\n") * 12)
    with opened(browser, served, "#/new") as page:
        file, send = page.get_by_label("or examples from a file"), page.get_by_text("Start the job")
        file.set_input_files(wrong)
        send.click()
        expect(file).to_be_focused()
        expect(file).to_have_accessible_description(re.compile("line 1.*JSON lines, a chat"))
        file.set_input_files(right)
        send.click()
        expect(page.locator("h1 + span")).to_have_text("queued")
        # Finished rows are neither mined nor judged.
        assert page.locator(".stages li").count() == 1
    (job,) = served.store.page(10)
    assert job.spec.source.startswith("file-")


def test_an_answer_shows_its_quotes_and_nothing_of_it_runs(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    file = tmp_path / "client.py"
    file.write_text("class Client:\n    limit = 3\n")
    served.says = [ANSWER[at : at + 7] for at in range(0, len(ANSWER), 7)]
    with opened(browser, served, "#/chat") as page:
        expect(page.get_by_label("Model")).to_have_value("shop")
        page.get_by_label("Add documents").set_input_files(file)
        question = page.get_by_label("Question")
        question.fill("What is the limit?")
        question.press("Enter")
        answer = page.locator(".turn.answer[aria-busy]")
        expect(answer).to_have_count(0)
        assert page.locator(".reason p").all_inner_texts() == ["Document [1] sets it."]
        assert page.locator(".quote pre").all_inner_texts() == ["    limit = 3", "limit = 4"]
        captions = page.locator(".quote figcaption").all_inner_texts()
        assert captions == ["[1] client.py, line 2", "in none of the documents"]
        final = page.locator(".final p").inner_text()
        assert final == "3 <script>document.title = 'taken'</script><img src=x>"
        assert page.locator("main script, main img").count() == 0
        assert page.title() == "Forge: Chat"
        shown = [Document(id="d", path="client.py", text=file.read_text(), oracle=False)]
        assert served.asked[0]["messages"] == [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": show_documents(shown, "What is the limit?")},
        ]
        # Without documents the talk goes along; an answer in no form is shown as it is.
        page.get_by_role("button", name="Remove client.py").click()
        served.says = ["A <b>plain</b> answer"]
        question.fill("And now?")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".final p").last).to_have_text("A <b>plain</b> answer")
        asked = [one["content"] for one in served.asked[1]["messages"]]
        assert asked == ["What is the limit?", ANSWER, "And now?"]


def test_two_runs_are_compared(browser: Browser, served: Served) -> None:
    a = finished(served, "/repos/shop", 0.5, options={"rank": 8})
    b = finished(served, "/repos/shop", 0.7, options={"rank": 16})
    with opened(browser, served) as page:
        for job in (a, b):
            page.get_by_label(f"Compare {job}").check()
        page.get_by_role("link", name="Compare", exact=True).last.click()
        picture = page.get_by_role("img", name="A training: from 2 at step 1 to 1 at step 3")
        expect(picture).to_be_visible()
        assert picture.locator("polyline").count() == 4
        cells = page.get_by_role("row", name="answer f1").get_by_role("cell").all_inner_texts()
        assert cells == [
            "0.500", "0.700", "+0.200", "+0.300 [+0.100, +0.600]", "+0.500 [+0.100, +0.600]",
        ]  # fmt: skip
        assert page.get_by_role("row", name="rank").inner_text().split() == ["rank", "8", "16"]
        page.get_by_label("Run B").select_option(a)
        expect(page.get_by_text("both had the same source")).to_be_visible()


def test_a_token_is_asked_for_once(browser: Browser, served: Served) -> None:
    running(served)
    served.stop()
    served.start("secret")
    with opened(browser, served) as page:
        dialog = page.get_by_role("dialog", name="This server asks for a token")
        expect(dialog.get_by_label("Token")).to_be_focused()
        page.keyboard.press("Escape")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("did not accept that token")).to_be_visible()
        page.keyboard.type("secret")
        page.keyboard.press("Enter")
        expect(page.get_by_role("link", name="shop")).to_be_visible()
        page.reload()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        expect(dialog).to_have_count(0)
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
