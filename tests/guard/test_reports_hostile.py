"""Text of a repository in a report is shown as it is, and is never markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from report_sample import HOSTILE, Shop, shop, symbols

from forge_cli.guard.reports import PAGES, facts, render
from forge_cli.guard.reports.escaping import clean, markdown, markdown_code
from forge_cli.guard.reports.rendering import builtin_source

# As GitHub's: CommonMark with tables.
GITHUB = MarkdownIt("commonmark").enable("table")
TEXTS = (
    *HOSTILE, "a\\|b", "\\", "``x``|", "1. one", "- item", "---", "> said", "| a | b |",
    "$x$ ~~y~~",
    "[a](http://b)", "![i](x)", "&lt;b&gt; &amp;", "&#124;", "<!-- forge-guard -->", "www.a.b",
    "http://a.b/c", "</details>", "    indented", "a * b * c _d_ e_f", "tail\\", "=", "#1 @a/b",
)  # fmt: skip


class Read(HTMLParser):
    """Tags, attributes, and the text of each cell of a table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.cells: list[list[str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data


def said(text: str) -> str:
    """What a reader sees."""
    return " ".join(text.replace("\N{ZERO WIDTH SPACE}", "").split())


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("text", TEXTS)
def test_text_is_what_github_shows(text: str) -> None:
    wanted = said(clean(text))
    for form in (markdown, markdown_code):
        made = form(text)
        table = Read(GITHUB.render(f"| a | b |\n|---|---|\n| {made} | {made} |\n| x | y |\n"))
        assert [[said(cell) for cell in line] for line in table.cells] == [
            ["a", "b"], [wanted, wanted], ["x", "y"],
        ]  # fmt: skip
        alone = Read(GITHUB.render(f"{made}\n\n- {made}\n  - {made}\n"))
        assert [said(line) for line in alone.text.split("\n") if said(line)] == [wanted] * 3
        assert set(table.tags + alone.tags) <= {
            "table", "thead", "tbody", "tr", "th", "td", "code", "p", "ul", "li",
        }  # fmt: skip


def test_nobody_is_notified() -> None:
    """A decorator is no person; within backticks GitHub looks for none."""
    assert not re.search(r"@\w|#\d", markdown("@property of #12"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_no_markup_of_the_repository(sample: Shop, page: str) -> None:
    told = facts(sample.cycle, [], sample.run, sample.before, symbols=symbols())
    text = render(page, told)
    read = Read(text if page.endswith(".html") else GITHUB.render(text))
    assert not {"script", "img", "b" * page.endswith(".md")} & set(read.tags)
    assert not [name for name in read.attributes if name.startswith("on")]
    # The template's own table, whole: a pipe or a new line in a name makes no cell and no row.
    if page == "drift.md":
        differ = [line for line in read.cells if len(line) == 4]
        shown = {said(line[0].rpartition(" (")[0]) for line in differ[1:]}
        assert {said(clean(name)) for name in HOSTILE} <= shown
        assert len(differ) == len(HOSTILE) + 2
    if page == "report.html":
        assert {said(clean(name)) for name in HOSTILE} <= {said(c[0]) for c in read.cells if c}
    assert page.startswith("drift") or "49" not in read.text  # {{ 7 * 7 }} stays as it is


def test_colours_can_be_read() -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5, in light and in dark."""
    schemes = re.findall(r":root \{([^}]*)\}", builtin_source("parts/page.html.j2"))
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))
        for text in ("ink", "soft", "accent", "good", "bad"):
            for ground in ("paper", "card"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_sample_is_hostile(sample: Shop) -> None:
    """Else the tests above show nothing."""
    assert Path(sample.run / "eval" / "update" / "raft.jsonl").read_text().count("<script>") > 1
