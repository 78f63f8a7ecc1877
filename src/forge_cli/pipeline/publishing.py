"""What an export wrote, with a card, to a hub: only where --push asks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forge_cli.core.config import Settings, checked
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import atomic_file, read_records
from forge_cli.core.records import Example
from forge_cli.core.run_dir import RunDir
from forge_cli.export.card import ModelCard, Piece, render


def check_push(repo: str, *, dry_run: bool) -> None:
    """Refuse a push that cannot work before anything is exported; nobody is asked.

    Raises:
        UsageError: `repo` is no OWNER/NAME. ForgeError: there is no token.
    """
    from forge_cli.export.hub import check_repo, check_token

    check_repo(repo)
    if not dry_run:
        check_token()


def publish(
    run: RunDir,
    written: Sequence[Path],
    reporter: Reporter,
    *,
    repo: str,
    private: bool = True,
    dry_run: bool = False,
    endpoint: str | None = None,
    bars: bool = False,
) -> str:
    """Write export/README.md and send it with what was exported; the address, "" of a dry run.

    Args:
        written: files and directories of this export.
        repo: OWNER/NAME. endpoint, bars: see `export.hub.push`.

    Raises:
        ForgeError: see `export.hub.push`; nothing is shown there then.
    """
    from forge_cli.export.hub import plan_upload, push
    from forge_cli.models.resolve import public_name

    own = run.state["settings"]
    s = checked(own, dict.fromkeys(own, f"{run.path}/run.json"))
    card = render(_card(run, s, written, repo))
    with run.locked(), atomic_file(run.path / "export" / "README.md") as stream:
        stream.write(card.encode())
    local = [str(run.path.resolve())]
    local += [str(Path(str(run.state["source"])).resolve())] * (not _prepared(run))
    local += [str(Path(s.model).resolve())] * Path(s.model).exists()
    upload = plan_upload(repo, private, written, card, base=public_name(s.model), local=local)
    sizes = upload.sizes()
    seen = "private" if private else "public"
    for name, size in sizes.items():
        reporter.note(f"  {name} ({size / 1e6:.1f} MB)")
    reporter.note(
        f"{'would push' if dry_run else 'pushing'} {len(sizes)} files, "
        f"{sum(sizes.values()) / 1e6:.0f} MB, to {repo}, {seen}"
    )
    reporter.warn(
        f"weights can tell text that they were trained on: whoever can read {repo} may read parts "
        f"of {_repository(run)}" + ("" if private else ", and that is everyone")
    )
    if dry_run:
        reporter.note(f"the card: {run.path / 'export' / 'README.md'}; nobody was contacted")
        return ""
    address = push(upload, reporter, endpoint=endpoint, bars=bars)
    reporter.note(f"pushed: {address}")
    return address


def _card(run: RunDir, s: Settings, written: Sequence[Path], repo: str) -> ModelCard:
    from forge_cli.evaluate.report.card import SAYS, Card, limits
    from forge_cli.evaluate.report.names import reason_in_words
    from forge_cli.models.load import licence_of
    from forge_cli.models.resolve import hub_id, public_name

    metrics = run.state["metrics"]
    verdict = metrics.get("verdict") or {}
    base, repository = public_name(s.model), _repository(run)
    says = "It was not compared with its base: nothing here says that it is better."
    return ModelCard(
        repo=repo,
        base=base,
        base_id=hub_id(s.model),
        licence=licence_of(s.model),
        repository=repository,
        how=_how(run, s),
        verdict=SAYS[verdict["outcome"]] if verdict else says,
        reasons=[reason_in_words(reason) for reason in verdict.get("reasons", [])],
        measured=_measured(metrics.get("eval", {})),
        metrics=_meanings(metrics.get("eval", {})),
        pieces=_pieces(run, written),
        limits=limits(Card(base, "", repository, {}, {})),
    )


def _how(run: RunDir, s: Settings) -> dict[str, str]:
    trained = run.state["metrics"].get("train", {})
    kept = f", the best of them {trained['best_step']}" if trained.get("best_step") else ""
    versions = run.state["versions"]
    how = {
        "adapters": f"{s.init}, rank {s.rank}, scale {(s.alpha or s.rank) / s.rank:g}"
        + ", with trained magnitudes (DoRA)" * (s.dora or s.init == "dora"),
        "base while training": f"{s.bits} bits, groups of {s.group_size}"
        if s.bits != 16
        else "not quantised",
        "loss": s.loss,
        "optimiser steps": f"{trained['steps']}{kept}" if "steps" in trained else "",
        "seed": str(s.seed),
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("forge-cli", "mlx", "mlx-lm")
                              if name in versions),
    }  # fmt: skip
    if s.adapters:
        how["training went on from"] = "adapters of an earlier run"
    rows = run.file("data", "examples.jsonl")
    if rows.exists():
        found = (row for row in read_records(rows, Example) if row.split == "train")
        kinds = Counter(row.origin.kind for row in found)
        told = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        how["training rows, by kind of question"] = f"{sum(kinds.values())}: {told}"
    return how


def _measured(suites: Mapping[str, Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """What eval measured: heading → rows of a table; every comparison, also the lost ones."""
    from forge_cli.evaluate.report.names import CONDITION_NAMES

    found: dict[str, list[list[str]]] = {}
    for suite, metrics in suites.items():
        name = suite.removesuffix("+examples").removeprefix("raft:")
        shown = " that is shown two worked answers" * suite.endswith("+examples")
        found.setdefault(f"On held-out files, against the base{shown}", []).extend(
            [
                CONDITION_NAMES.get("given" if name == "raft" else name, name),
                metric.replace("_", " "),
                f"{m['base']:.3f} → {m['tuned']:.3f}",
                f"{m['difference']:+.3f} [{m['low']:+.3f}, {m['high']:+.3f}]",
                f"{m['verdict']} ({m['n']} rows, {m['clusters']} files)",
            ]
            for metric, m in metrics.items()
        )
    return found


def _meanings(suites: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    from forge_cli.evaluate.report.names import METRICS

    asked = {metric for metrics in suites.values() for metric in metrics}
    return {name.replace("_", " "): words for name, words in METRICS.items() if name in asked}


def _pieces(run: RunDir, written: Sequence[Path]) -> list[Piece]:
    from forge_cli.export.hub import places

    facts = run.state["metrics"].get("export", {})
    pieces = []
    for path, place in places(written).items():
        key = path.stem if path.is_file() else path.name
        key = key.removeprefix(f"{run.path.name}-")
        kind = key if path.is_dir() else "gguf"
        parity = facts.get(f"parity.{key}", {})
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        size = sum(one.stat().st_size for one in files)
        label = key
        if "bits" in parity and parity["bits"] != 16:
            label = f"{key}, {parity['bits']} bits"
        elif "dtype" in parity:
            label = f"{key}, {parity['dtype']}"
        kept = facts.get(f"retention.{key}", {})
        pieces.append(Piece(place, kind, label, size, parity, kept))
    return pieces


def _prepared(run: RunDir) -> bool:
    """Whether training began from finished rows: then nobody knows of which repository."""
    return str(run.state["source"]).startswith("sha256:")


def _repository(run: RunDir) -> str:
    """The repository's name; never its path."""
    if _prepared(run):
        return "a private repository"
    return Path(str(run.state["source"])).resolve().name


__all__ = ["check_push", "publish"]
