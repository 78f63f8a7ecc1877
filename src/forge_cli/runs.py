"""What run directories say of themselves: several at a glance, one in short, two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.run_dir import RunDir

FOLDER = Path(".forge") / "runs"


def find_runs(folder: Path) -> list[RunDir]:
    """The runs in `folder` by name; those whose run.json is broken are left out.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no runs here", "make one with: forge train REPO")
    found = []
    for file in sorted(folder.glob("*/run.json")):
        try:
            found.append(RunDir.load(file.parent))
        except ForgeError:
            continue
    return found


def summary(run: RunDir) -> dict[str, Any]:
    """A run in short: what it was made from, how far it came, and how it was judged.

    Of the metrics under `eval` each is base · tuned · difference · low · high · n · verdict.
    """
    state = run.state
    metrics = state["metrics"]
    verdict = metrics.get("verdict") or {}
    return {
        "name": run.path.name,
        "path": str(run.path),
        "source": state.get("source", ""),
        "model": state["settings"].get("model", ""),
        "stages": sorted(state["stages"]),
        "train": metrics.get("train"),
        "verdict": verdict.get("outcome"),
        "reasons": list(verdict.get("reasons", [])),
        "eval": metrics.get("eval") or {},
        "files": [_file(name) for name in state["files"]],
        "deployed": _deployed(metrics.get("deploy")),
        "report": _existing(run.path / "eval" / "report.html"),
    }


def _deployed(told: dict[str, Any] | None) -> dict[str, Any] | None:
    if not told or told.get("dry_run"):
        return None
    return {key: told.get(key) for key in ("name", "version", "previous", "url")}


def _file(name: str) -> dict[str, Any]:
    file = Path(name)
    return {"path": name, "bytes": file.stat().st_size if file.is_file() else None}


def _existing(file: Path) -> str | None:
    return str(file) if file.exists() else None


def compare(first: RunDir, second: RunDir) -> dict[str, Any]:
    """Two runs side by side: settings that differ, and what each measured of its tuned model.

    The differences are of two means over rows that need not be the same, so they have no
    interval; `notes` says so, and what gives a paired comparison.
    """
    runs = [summary(first), summary(second)]
    tuned = [_tuned(run["eval"]) for run in runs]
    names = [*tuned[0], *(name for name in tuned[1] if name not in tuned[0])]
    before, after = (run.state["settings"] for run in (first, second))
    return {
        "runs": [{key: run[key] for key in ("name", "path", "model", "verdict")} for run in runs],
        "settings": [
            {"name": name, "first": before.get(name), "second": after.get(name)}
            for name in sorted(set(before) | set(after))
            if before.get(name) != after.get(name)
        ],
        "metrics": [_metric(name, tuned[0].get(name), tuned[1].get(name)) for name in names],
        "notes": [
            "these are means over each run's own rows; for a paired comparison with intervals: "
            f"forge eval {first.path} --side base --side tuned --side {second.path}"
        ],
    }


def _tuned(suites: dict[str, Any]) -> dict[str, float]:
    return {
        f"{suite}.{name}": one["tuned"]
        for suite, metrics in suites.items()
        for name, one in metrics.items()
        if isinstance(one, dict) and "tuned" in one
    }


def _metric(name: str, first: float | None, second: float | None) -> dict[str, Any]:
    known = first is not None and second is not None
    return {
        "name": name,
        "first": first,
        "second": second,
        "difference": second - first if known else None,  # type: ignore[operator]
    }
