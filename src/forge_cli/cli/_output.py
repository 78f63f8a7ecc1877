"""The terminal: progress, notes and tables on stderr; stdout is for data only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from forge_cli.core.events import Task

if TYPE_CHECKING:
    from rich.console import Console

# Seconds between progress lines where stderr is no terminal.
_LINE_EVERY = 15.0


class Output:
    """A `Reporter` for people (rich, on stderr) or, with `json_lines`, for programs."""

    def __init__(self, *, json_lines: bool = False, quiet: bool = False) -> None:
        from rich.console import Console

        self.json_lines = json_lines
        self.quiet = quiet
        self.console: Console = Console(stderr=True, highlight=False)
        if not self.console.is_terminal:
            # Redirected output has no width of its own; 80 columns would cut the tables.
            self.console.width = 120

    def note(self, message: str) -> None:
        """A line that a user may want to know."""
        if not self.quiet:
            self._line("note", message, "")

    def warn(self, message: str) -> None:
        """A line that a user should act on; shown even with -q."""
        self._line("warning", f"warning: {message}", "yellow")

    def _line(self, kind: str, message: str, style: str) -> None:
        if self.json_lines:
            print(json.dumps({kind: message}, ensure_ascii=False), file=sys.stderr)
        else:
            self.console.print(message, style=style or None, markup=False, soft_wrap=True)

    def next(self, command: str) -> None:
        """The one line that a success ends with."""
        self.note(f"next: {command}")

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[Task]:
        """A progress bar on a terminal; elsewhere a line now and then."""
        if self.quiet:
            yield _Lines(name, total, lambda _: None)
        elif self.json_lines:
            yield _Lines(name, total, lambda text: self._line("progress", text, ""), every=1.0)
        elif not self.console.is_terminal or self.console.is_dumb_terminal:
            yield _Lines(name, total, lambda text: self.note(text))
        else:
            with _bar(self.console) as progress:
                yield _Bar(progress, progress.add_task(name, total=total, detail=""))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
        """A small table on stderr."""
        if self.quiet or self.json_lines:
            return
        from rich import box
        from rich.table import Table

        table = Table(
            title=title,
            box=box.SIMPLE_HEAD,
            title_justify="left",
            show_edge=False,
            pad_edge=False,
            padding=(0, 0, 0, 1),
        )
        cells = list(zip(columns, *rows, strict=True))
        widths = [max(map(len, column)) for column in cells]
        if sum(widths) + 2 * len(columns) > self.console.width:
            # Lines break between words, which the library's own shrinking does not heed.
            widths[1:] = [max(len(w) for cell in c for w in cell.split()) for c in cells[1:]]
        for number, (column, width) in enumerate(zip(columns, widths, strict=True)):
            table.add_column(
                column, justify="right" if number else "left", width=width, overflow="fold"
            )
        for row in rows:
            table.add_row(*row)
        self.console.print(table)


class _Lines:
    def __init__(
        self, name: str, total: float | None, show: Any, every: float = _LINE_EVERY
    ) -> None:
        self.name, self.total, self.show, self.every = name, total, show, every
        self.done, self.shown = 0.0, time.monotonic()

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        self.done += amount
        if time.monotonic() - self.shown >= self.every:
            self.shown = time.monotonic()
            of = f"/{self.total:.0f}" if self.total else ""
            self.show(f"{self.name}: {self.done:.0f}{of} {detail}".rstrip())

    def resize(self, total: float) -> None:
        self.total = total


class _Bar:
    def __init__(self, progress: Any, task: Any) -> None:
        self.progress, self.id = progress, task

    def advance(self, amount: float = 1.0, detail: str = "") -> None:
        fields = {"detail": detail} if detail else {}
        self.progress.update(self.id, advance=amount, **fields)

    def resize(self, total: float) -> None:
        self.progress.update(self.id, total=total)


def _bar(console: Console) -> Any:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        transient=True,
    )


def comparison_rows(suites: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[list[str]]:
    """suite → metric → comparison as rows of a table: a suite's name, and its metrics below it."""
    rows = []
    for suite, metrics in suites.items():
        rows.append([suite, *[""] * (len(COMPARISON_COLUMNS) - 1)])
        rows += [
            [
                f"  {name}",
                f"{m['base']:.3f} → {m['tuned']:.3f}",
                f"{m['difference']:+.3f}",
                f"[{m['low']:+.3f}, {m['high']:+.3f}]",
                f"{m['n']} / {m['clusters']}",
                str(m["verdict"]),
            ]
            for name, m in metrics.items()
        ]
    return rows


COMPARISON_COLUMNS = (
    "metric", "base → tuned", "difference", "95 % interval", "rows / files", "verdict",
)  # fmt: skip
