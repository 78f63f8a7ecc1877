"""Loss and score of a real deployed model on new code and on old."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
from drifting import Trained, chunks_of, trained_on

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.config import RetrainWhen
from forge_cli.guard.drift import measure, remember
from forge_cli.guard.drift.rows import find_rows
from forge_cli.guard.state import Deployed, Guarded
from forge_cli.models.adapters import load_tuned
from forge_cli.models.answer_losses import answer_losses
from forge_cli.pipeline import mine_chunks
from forge_cli.pipeline.update import changes

BY_LOSS = RetrainWhen(drift=None, loss=0.1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    with trained_on(tmp_path_factory.mktemp("drift")) as found:
        yield found


@pytest.fixture
def guarded(trained: Trained, tmp_path: Path) -> Guarded:
    return trained.copied(tmp_path)


def other_module(n: int) -> str:
    """Code that is not alike to what was trained on."""
    return "\n\n".join(
        f"def {verb}_{noun}_{n}(source{n}, limit{i}={n + i}, strict=True):\n"
        f'    """Asks {noun} number {n} to {verb} whatever {noun}s it has, up to a limit."""\n'
        f"    if strict and limit{i} < {n}:\n"
        f"        raise ValueError('{noun} {n} cannot {verb}')\n"
        f"    return [item_{verb}.{noun}() for item_{verb} in source{n}[:limit{i}]]\n"
        for i, (verb, noun) in enumerate([("open", "valve"), ("bake", "bread"), ("sort", "tower")])
    )


def test_the_deployed_model_is_asked_about_new_code(
    guarded: Guarded, trained: Trained, tmp_path: Path
) -> None:
    for n in range(30, 38):
        (guarded.repository / f"new{n}.py").write_text(other_module(n))
    quiet = measure(guarded, trained.deployed, BY_LOSS, trained.s, ask=False)
    assert not quiet.asked and quiet.new_loss is None and quiet.share > 0.2
    under = measure(guarded, trained.deployed, RetrainWhen(drift=0.9), trained.s)
    assert not under.asked, "less than half of its threshold"
    found = measure(guarded, trained.deployed, RetrainWhen(drift=0.3), trained.s, rows=8, answers=2)
    assert found.asked and found.new_rows == found.old_rows == 8
    assert found.new_score is not None and found.old_score is not None
    assert (found.new_loss, found.old_loss) == pytest.approx(
        expected_losses(guarded, trained), rel=1e-3
    )

    kept = guarded.folder / "drift" / "losses.jsonl"
    lines = kept.read_text().splitlines()
    assert len(lines) == 16
    again = measure(guarded, trained.deployed, BY_LOSS, trained.s, rows=8, answers=2)
    assert kept.read_text().splitlines() == lines, "nothing is asked twice"
    assert again.model_copy(update={"time": found.time}) == found
    remember(guarded, found)
    shutil.rmtree(guarded.folder / "drift")
    told = measure(guarded, trained.deployed, BY_LOSS, trained.s, ask=False)
    assert told.new_loss == found.new_loss and not (guarded.folder / "drift").exists()

    half = shutil.copytree(trained.run, tmp_path / "half", ignore=lambda *_: ["adapters"])
    with pytest.raises(ForgeError, match="adapters are gone"):
        measure(guarded, Deployed(run=str(half)), BY_LOSS, trained.s, rows=8)


def expected_losses(guarded: Guarded, trained: Trained) -> tuple[float, float]:
    """The means, from the model itself."""
    run, then = RunDir.load(trained.run), chunks_of(trained)
    now = list(mine_chunks(guarded.repository, trained.s, SILENT))
    rows = find_rows(run, then, now, changes(then, now), (), trained.s, 8, SILENT)
    assert all(row.origin.path.startswith("new") for row in rows.new)
    loaded = load_tuned(trained.run / "adapters")
    new, old = (
        fmean(answer_losses(loaded, [row.messages for row in part], "", SILENT))
        for part in (rows.new, rows.old)
    )
    return new, old


def test_too_few_rows_are_counted_and_load_no_model(guarded: Guarded, trained: Trained) -> None:
    (guarded.repository / "new.py").write_text(other_module(30))
    # A word less is no new code: its answers were seen.
    file = guarded.repository / "m04.py"
    file.write_text(file.read_text().replace("as told, ", "", 1))
    found = measure(guarded, trained.deployed, BY_LOSS, trained.s)
    assert found.asked and 0 < found.new_rows < 8 and found.new_loss is None
    assert not (guarded.folder / "drift").exists()
    guarded.add(found.model_copy(update={"new_rows": 7}))
    assert measure(guarded, trained.deployed, BY_LOSS, trained.s).new_rows == 7, (
        "rows are not made anew"
    )
