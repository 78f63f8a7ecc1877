"""The export stage over a run directory: files, checked, and what they keep of the gain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Settings
from forge_cli.core.errors import GateFailed, PromptDiffers, UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.judging import held_out, test_rows, train_rows
from forge_cli.pipeline.provenance import provenance

if TYPE_CHECKING:
    from forge_cli.evaluate.statistics.retained import Retained

# What `auto` tries, the smallest first, until one keeps this share of the held-out gain.
AUTO, ENOUGH = ("q4_k_m", "q5_k_m", "q6_k", "q8_0", "f16"), 0.95


def export(run: RunDir, s: Settings, reporter: Reporter) -> list[Path]:
    """The export stage: GGUF files and directories in export/, checked; their paths.

    Raises:
        UsageError: the run is not trained, or `auto` has nothing to decide by.
        GateFailed: a file is not the trained model.
    """
    if not run.is_done("train"):
        raise UsageError(f"{run.path}: not trained yet", "run: forge train")
    auto = "auto" in s.quant and "gguf" in s.to
    if auto and (len(s.quant) > 1 or not s.retention_rows or not _rows(run, s)):
        raise UsageError(
            "quant auto: needs test rows (retention_rows), and no other type beside it",
            "name types: --quant q4_k_m --quant q8_0",
        )
    written: list[Path] = []
    with run.locked(), accelerator(reporter):
        for kind in dict.fromkeys(kind for kind in s.to if kind != "gguf"):
            written += _write(run, s, kind, [], reporter)
            if kind == "mlx" and s.mlx_bits != 16:
                _judge(run, s, kind, _file(run, kind), reporter)
        if "gguf" in s.to and auto:
            written.append(_smallest(run, s, reporter))
        for quant in dict.fromkeys(s.quant) if "gguf" in s.to and not auto else ():
            written += _write(run, s, "gguf", [quant], reporter)
            _judge(run, s, quant, _file(run, f"{quant}.gguf"), reporter)
    return written


def _smallest(run: RunDir, s: Settings, reporter: Reporter) -> Path:
    """The smallest file that keeps enough; the others that were tried are removed."""
    for quant in AUTO:
        try:
            _write(run, s, "gguf", [quant], reporter)
        except PromptDiffers:
            raise  # the same in every type
        except GateFailed as fault:
            if quant == AUTO[-1]:
                raise
            _file(run, f"{quant}.gguf.rejected").unlink()
            reporter.note(f"auto: {quant} is not near enough ({fault}); a larger type is tried")
            continue
        file = _file(run, f"{quant}.gguf")
        found = _judge(run, s, quant, file, reporter)
        if found is None or found.share >= ENOUGH or quant == AUTO[-1]:
            reporter.note(f"auto: {quant}")
            return file
        reporter.note(f"auto: {quant} keeps too little; a larger type is tried")
        file.unlink()
        run.drop_file(str(file))
    raise AssertionError  # the last one is taken whatever it keeps


def _write(
    run: RunDir, s: Settings, kind: str, quants: Sequence[str], reporter: Reporter
) -> list[Path]:
    from forge_cli import export as stage

    _forget(run, quants or [kind])
    files, facts = stage.run(
        adapters=run.path / "adapters",
        out=run.path / "export",
        name=run.path.name,
        to=[kind],
        quants=quants,
        mlx_bits=s.mlx_bits,
        mlx_group_size=s.mlx_group_size,
        dtype=s.dtype,
        held_out=held_out(run),
        calibration=_calibration(run, s, quants) if kind == "gguf" else [],
        provenance=provenance(run),
        parity=s.parity,
        reporter=reporter,
    )
    _record(run, facts)
    run.add_files([str(file) for file in files])
    return files


def _judge(run: RunDir, s: Settings, name: str, file: Path, reporter: Reporter) -> Retained | None:
    """What a file or directory keeps; None where that is not asked, or nothing was gained."""
    rows = _rows(run, s)
    if not s.parity or not rows:
        return None
    from forge_cli.pipeline.retention import measure

    found = measure(run, file, rows, s, reporter)
    if found is None:
        reporter.note(f"{name}: the tuned model is no better than its base: nothing to keep")
        return None
    reporter.note(
        f"{name}: keeps {found.share:.0%} [{found.low:.0%}, {found.high:.0%}] of what was gained "
        f"over the base ({found.n} rows, {found.clusters} files)"
    )
    files = [file] if file.is_file() else [one for one in file.rglob("*") if one.is_file()]
    size = sum(one.stat().st_size for one in files)
    _record(run, {f"retention.{name}": found.as_dict() | {"bytes": size}})
    _draw(run, reporter)
    return found


def _draw(run: RunDir, reporter: Reporter) -> None:
    """The picture of all types that were tried; of one alone there is nothing to see."""
    from forge_cli.evaluate.report.retention import retention_plot

    facts = run.state["metrics"]["export"]
    tried = {
        name.removeprefix("retention."): own
        for name, own in facts.items()
        if name.startswith("retention.")
    }
    if len(tried) > 1:
        picture = run.path / "export" / "retention.svg"
        with atomic_file(picture) as stream:
            stream.write(retention_plot(tried, ENOUGH).encode())
        reporter.note(f"size against what is kept: {picture}")


def _rows(run: RunDir, s: Settings) -> list[Any]:
    from forge_cli.evaluate import spread

    if not s.retention_rows or not run.file("data", "examples.jsonl").exists():
        return []
    # Of many files, as the judge's are: the first of them come in turns.
    return spread(test_rows(run), s.eval_rows, s.seed)[: s.retention_rows]


def _calibration(run: RunDir, s: Settings, quants: Sequence[str]) -> list[Any]:
    """Training rows of many files for the importance matrix; none for types that take no matrix."""
    from forge_cli.evaluate import spread

    if not s.importance_rows or set(quants) <= {"f32", "f16", "bf16", "q8_0"}:
        return []
    return spread(train_rows(run), s.importance_rows, s.seed)


def _file(run: RunDir, ending: str) -> Path:
    return run.path / "export" / f"{run.path.name}-{ending}"


def _record(run: RunDir, facts: dict[str, Any]) -> None:
    run.record(export=run.state["metrics"].get("export", {}) | facts)


def _forget(run: RunDir, names: Sequence[str]) -> None:
    """What was measured of files that are written anew is not true of the new ones."""
    gone = {f"{fact}.{name}" for name in names for fact in ("parity", "retention")}
    facts = run.state["metrics"].get("export", {})
    run.record(export={key: value for key, value in facts.items() if key not in gone})
