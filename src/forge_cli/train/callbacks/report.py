"""report.html: the curves of a run on one page that needs nothing else, drawn while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from forge_cli.core.jsonl import atomic_file
from forge_cli.train.callbacks.metrics import read_rows
from forge_cli.train.callbacks.protocol import Callback, Run, Validation

FILE = "report.html"
_WIDTH, _HEIGHT = 640.0, 160.0
_POINTS = 400  # more than this many steps are drawn as means of neighbours

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A line to draw: its name, `x,y` pairs for SVG, and its last value."""

    name: str
    points: str
    last: str


@dataclass(frozen=True)
class Plot:
    """Curves over the steps in one frame, with the ends of both axes."""

    title: str
    curves: list[Curve]
    low: str
    high: str
    first: int
    final: int


class Report(Callback):
    """Draws the page from metrics.jsonl at each validation and at the end.

    Comes after `Metrics` in the list of callbacks, so that the row is there.
    """

    def __init__(self, title: str) -> None:
        self.title = title

    def on_validation(self, run: Run, validation: Validation) -> None:
        """Draw what there is so far."""
        self._write(run, validation.history, ended=False)

    def on_end(self, run: Run) -> None:
        """Draw it a last time, as a page that no longer reloads itself."""
        self._write(run, run.progress.history, ended=True)

    def _write(self, run: Run, history: Sequence[tuple[int, float]], *, ended: bool) -> None:
        state = run.stop or ("finished" if run.ended else "stopped" if ended else "training")
        page = render(
            read_rows(run.out),
            history,
            title=self.title,
            steps=run.steps,
            state=state,
            live=not ended,
        )
        with atomic_file(run.out / FILE) as stream:
            stream.write(page.encode())


def render(
    rows: Sequence[dict[str, Any]],
    history: Sequence[tuple[int, float]],
    *,
    title: str,
    steps: int,
    state: str,
    live: bool,
) -> str:
    """The page's HTML.

    Args:
        rows: of metrics.jsonl.
        history: (step, validation loss).
        live: whether the page reloads itself.
    """
    from jinja2 import Environment

    trained = [row for row in rows if "loss" in row]

    def of(name: str, scale: float = 1.0) -> Points:
        return [(row["step"], row[name] * scale) for row in trained if name in row]

    def rate(name: str) -> Points:
        return [(row["step"], row[name] / max(row["seconds"], 1e-9)) for row in trained]

    plots = [
        plot("Loss, nats a token", {"train": of("loss"), "valid": [*history]}),
        plot("Learning rate", {"rate": of("learning_rate")}),
        plot("Tokens a second", {"all": rate("tokens"), "supervised": rate("supervised_tokens")}),
        plot("Memory, GB", {"step": of("step_bytes", 1e-9), "peak": of("peak_bytes", 1e-9)}),
    ]
    best = min(history, key=lambda at: at[1], default=None)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = files("forge_cli.train.callbacks").joinpath("report.html.j2")
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        state=state,
        live=live,
        steps=steps,
        done=trained[-1]["step"] if trained else 0,
        seconds=sum(row["seconds"] for row in trained),
        tokens=sum(row["tokens"] for row in trained),
        first=history[0][1] if history else None,
        best=best,
        plots=[drawn for drawn in plots if drawn],
        width=_WIDTH,
        height=_HEIGHT,
    )


def plot(title: str, curves: dict[str, Points]) -> Plot | None:
    """Curves of points (step, value) in a common frame; None where there is no point."""
    drawn = {name: thinned(points) for name, points in curves.items() if points}
    if not drawn:
        return None
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    left, right, high = min(xs), max(xs), max(ys)
    low = min(0.0, *ys)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0

    def placed(x: float, y: float) -> str:
        return f"{_WIDTH * (x - left) / wide:.1f},{_HEIGHT * (1 - (y - low) / tall):.1f}"

    lines = [
        Curve(name, " ".join(placed(x, y) for x, y in points), f"{points[-1][1]:.4g}")
        for name, points in drawn.items()
    ]
    return Plot(title, lines, f"{low:.3g}", f"{high:.3g}", round(left), round(right))


def thinned(points: Points) -> Points:
    """At most `_POINTS` points: means of neighbours where there are more."""
    size = -(-len(points) // _POINTS)
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
