"""The report's pictures, drawn by matplotlib as SVG that takes the page's own colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forge_cli.evaluate.metrics import LOSSES, TIMES
from forge_cli.evaluate.report.names import CONDITION_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from forge_cli.evaluate.pairing import Pair

# Colours to draw with, and the page's variables that stand in their place, light or dark.
INK, SOFT, LINE, ACCENT, GOOD, BAD = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606",
)  # fmt: skip
_VARIABLES = {
    INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)",
    ACCENT: "var(--accent)", GOOD: "var(--good)", BAD: "var(--bad)",
}  # fmt: skip
_OF_VERDICT = {"better": GOOD, "worse": BAD}
_WIDTH, _BAR = 7.2, 0.27  # inches


def forest(pairs: Sequence[Pair], label: str) -> str:
    """A forest plot of two sides: each score's difference, −1 to 1, with its 95 % interval.

    Losses and seconds have other scales, and stand in the table alone.

    Args:
        label: what the picture is of, for those who cannot see it.

    Returns:
        An <svg> element; "" where there is no score.
    """
    lines: list[Pair | str] = []
    for pair in pairs:
        if pair.metric not in (*LOSSES.values(), *TIMES):
            name = CONDITION_NAMES[pair.condition]
            lines += [name] * (name not in lines) + [pair]
    if not lines:
        return ""
    figure, axes = _figure(0.6 + _BAR * len(lines))
    axes.axvline(0, color=SOFT, linewidth=0.8)
    for place, line in enumerate(lines):
        if not isinstance(line, str):
            found, color = line.found, _OF_VERDICT.get(line.found.verdict, SOFT)
            axes.plot([found.low, found.high], [place, place], color=color, linewidth=1.8)
            axes.plot([found.difference], [place], "o", color=color, markersize=5.5)
    names = [one if isinstance(one, str) else one.metric.replace("_", " ") for one in lines]
    axes.set_yticks(range(len(lines)), names)
    for one, text in zip(lines, axes.get_yticklabels(), strict=True):
        text.set_fontweight("bold" if isinstance(one, str) else "normal")
    axes.set_ylim(len(lines) - 0.4, -0.8)
    shown = [one.found for one in lines if not isinstance(one, str)]
    reach = max(0.1, *(abs(end) for found in shown for end in (found.low, found.high)))
    axes.set_xlim(-min(1.0, reach) * 1.08, min(1.0, reach) * 1.08)
    axes.set_xlabel("worse   ←   difference   →   better")
    return as_svg(figure, label)


def loss_curves(rows: Sequence[Mapping[str, Any]]) -> str:
    """Loss in training and in validation by step, in nats a token.

    Args:
        rows: of metrics.jsonl.

    Returns:
        An <svg> element; "" where no step was trained.
    """
    trained = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    checked = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
    if not trained:
        return ""
    figure, axes = _figure(2.6)
    axes.plot(*zip(*trained, strict=True), color=SOFT, linewidth=1.0, label="training")
    if checked:
        places, losses = zip(*checked, strict=True)
        axes.plot(places, losses, "o-", color=ACCENT, markersize=4, label="validation")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.legend(frameon=False, labelcolor=INK)
    return as_svg(figure, "Loss in training and in validation by step")


def _figure(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    dress(axes)
    return figure, axes


def dress(axes: Axes) -> None:
    """The frame, grid and labels that all pictures have."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(colors=INK, color=LINE, length=0)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(SOFT)


def as_svg(figure: Figure, label: str) -> str:
    """The picture as an element whose text is text, the same for the same numbers."""
    import matplotlib

    stream = io.StringIO()
    # The salt decides the names that parts of the picture refer to each other by.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)  # HTML knows them
    # Groups are named alike in every picture of a page.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    said = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{said}" ', 1)
