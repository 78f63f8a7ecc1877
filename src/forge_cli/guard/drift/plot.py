"""Drift over time as a picture: symbols, loss and score, and what the guardian did about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from forge_cli.evaluate.report.figures import ACCENT, BAD, GOOD, INK, LINE, SOFT, as_svg, dress
from forge_cli.guard.config import GuardConfig
from forge_cli.guard.records import Cycle, Drift

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 7.2, (2.6, 1.7)  # inches, of the first panel and of each other
# A page's own variables come first; by itself the picture is legible on white and on black.
_NEUTRAL = {
    "ink": "#777777", "soft": "#777777", "line": "#80808059", "accent": "#c2660c",
    "good": "#2e8b57", "bad": "#d1495b",
}  # fmt: skip
_SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
# What a cycle came to: marker and colour; others changed nothing.
_MARKS = {
    "deployed": ("^", GOOD), "refused": ("X", BAD), "failed": ("s", SOFT),
    "rolled back": ("v", BAD),
}  # fmt: skip
_FEW = 60  # more points than these are a line without dots


def drift_plot(drifts: Sequence[Drift], cycles: Sequence[Cycle], config: GuardConfig) -> bytes:
    """Symbol drift with its threshold, loss and score of new and old code, and the retrainings.

    Panels of what was never measured are left out.

    Returns:
        An SVG document that may also stand in a page, the same for the same numbers, with a
        description for those who cannot see it; nothing where nothing was measured.
    """
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    if not drifts:
        return b""
    known = [name for name in ("loss", "score") if _points(drifts, f"new_{name}")[0]]
    heights = [_HEIGHT[0], *(_HEIGHT[1] for _ in known)]
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    ratios = {"height_ratios": heights}
    panels = list(
        figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw=ratios).flat
    )
    for axes in panels:
        dress(axes)
        axes.grid(axis="y", color=LINE, linewidth=0.6)
    _symbols(panels[0], drifts, config.retrain_when.drift)
    for name, axes in zip(known, panels[1:], strict=True):
        _new_and_old(axes, drifts, name)
    _retrainings(panels, cycles)
    if _span(drifts, cycles) == 0:  # a moment has no width to draw
        moment = _day(drifts[0].time)
        panels[0].set_xlim(moment - 0.5, moment + 0.5)
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    panels[-1].xaxis.set_major_locator(locator)
    panels[-1].xaxis.set_major_formatter(
        ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    )
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    for axes in panels:
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, labelcolor=INK, fontsize=8, **beside)
    return _alone(as_svg(figure, describe(drifts, cycles, config)))


def describe(drifts: Sequence[Drift], cycles: Sequence[Cycle], config: GuardConfig) -> str:
    """What the picture shows, in words and numbers."""
    first, last = drifts[0], drifts[-1]
    told = [
        f"Drift from {first.time[:10]} to {last.time[:10]}, measured {len(drifts)} times: "
        f"at last {100 * last.share:.1f} % of {last.symbols} symbols"
    ]
    if config.retrain_when.drift is not None:
        told.append(f"the threshold is {100 * config.retrain_when.drift:g} %")
    for name, unit in (("loss", " nats a token"), ("score", "")):
        pairs = [(getattr(d, f"new_{name}"), getattr(d, f"old_{name}")) for d in drifts]
        known = [pair for pair in pairs if None not in pair]
        if known:
            new, old = known[-1]
            told.append(f"{name} on new code {new:.2f}, on old {old:.2f}{unit}")
    done = [(name, sum(c.outcome == name for c in cycles)) for name in _MARKS]
    told += [
        f"{name} {count} times" if count > 1 else f"{name} once" for name, count in done if count
    ]
    return "; ".join(told) + "."


def _symbols(axes: Axes, drifts: Sequence[Drift], threshold: float | None) -> None:
    times = [_day(drift.time) for drift in drifts]
    shares = [100 * drift.share for drift in drifts]
    axes.plot(times, shares, _style(times), color=ACCENT, markersize=4, linewidth=1.4)
    if threshold is not None:
        axes.axhline(
            100 * threshold, color=SOFT, linewidth=0.9, linestyle="--",
            label=f"threshold {100 * threshold:g} %",
        )  # fmt: skip
    axes.set_ylim(0, 1.15 * max(1.0, *shares, 100 * (threshold or 0)))
    axes.set_ylabel("symbols that differ, %")


def _new_and_old(axes: Axes, drifts: Sequence[Drift], name: str) -> None:
    most = 0.0
    for side, color, line in (("new", ACCENT, "-"), ("old", INK, "--")):
        times, values = _points(drifts, f"{side}_{name}")
        dots = _style(times).removesuffix("-")
        axes.plot(
            times, values, f"{dots}{line}", color=color, markersize=4, linewidth=1.4,
            label=f"on {side} code",
        )  # fmt: skip
        most = max(most, *values)
    axes.set_ylim(0, 1.12 * most or 1)
    axes.set_ylabel("loss, nats a token" if name == "loss" else "score, answer F1")


def _retrainings(panels: Sequence[Axes], cycles: Sequence[Cycle]) -> None:
    """A line through all panels where a retraining began, and at its top what came of it."""
    for outcome, (marker, color) in _MARKS.items():
        found = [cycle for cycle in cycles if cycle.outcome == outcome]
        times = [_day(cycle.started) for cycle in found]
        for time in times:
            for axes in panels:
                axes.axvline(time, color=color, linewidth=0.7, linestyle=":")
        if times:
            top = panels[0].get_ylim()[1]
            panels[0].plot(
                times, [top] * len(times), marker, color=color, markersize=7, clip_on=False,
                label=outcome,
            )  # fmt: skip
            panels[0].set_ylim(0, top)


def _points(drifts: Sequence[Drift], name: str) -> tuple[list[float], list[float]]:
    known = [(_day(d.time), getattr(d, name)) for d in drifts if getattr(d, name) is not None]
    return [time for time, _ in known], [value for _, value in known]


def _style(times: Sequence[float]) -> str:
    return "o-" if len(times) <= _FEW else "-"


def _day(time: str) -> float:
    """Days since 1970 in UTC, for one axis."""
    found = datetime.fromisoformat(time)
    known = found if found.tzinfo else found.replace(tzinfo=UTC)
    return known.timestamp() / 86_400


def _span(drifts: Sequence[Drift], cycles: Sequence[Cycle]) -> float:
    times = [_day(d.time) for d in drifts]
    times += [_day(c.started) for c in cycles if c.outcome in _MARKS]
    return max(times) - min(times)


def _alone(picture: str) -> bytes:
    """An element of a page as a document of its own."""
    for name, color in _NEUTRAL.items():
        picture = picture.replace(f"var(--{name})", f"var(--{name}, {color})")
    head = f'<svg {_SPACES} font-family="system-ui, sans-serif" '
    return picture.replace("<svg ", head, 1).encode()
