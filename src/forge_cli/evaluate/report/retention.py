"""Size against retention: a picture by itself, for whoever chooses a GGUF type."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

_INK, _SOFT, _LINE, _ACCENT = "#1c1f24", "#5d6673", "#d9dde3", "#b4530a"


def retention_plot(found: Mapping[str, Mapping[str, Any]], enough: float) -> str:
    """What share of the held-out gain each file keeps, by its size, with 95 % intervals.

    Args:
        found: type → share, low, high and bytes.
        enough: the share that counts as kept, drawn as a line.

    Returns:
        An SVG document, the same for the same numbers.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.axhline(100 * enough, color=_SOFT, linewidth=0.8, linestyle="--")
    for name, own in found.items():
        size, share = own["bytes"] / 1e6, 100 * own["share"]
        axes.plot([size, size], [100 * own["low"], 100 * own["high"]], color=_ACCENT, linewidth=1.5)
        axes.plot([size], [share], "o", color=_ACCENT)
        axes.annotate(name, (size, share), (7, -3), textcoords="offset points", color=_INK)
    axes.set_xlim(0, 1.2 * max(own["bytes"] for own in found.values()) / 1e6)
    axes.set_xlabel("size, MB", color=_SOFT)
    axes.set_ylabel("kept of the gain over the base, %", color=_SOFT)
    axes.tick_params(colors=_INK, length=0)
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "retention"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
