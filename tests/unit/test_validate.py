"""Validation: each fault is rejected by name, and splits do not leak."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from forge_cli import mine, raft, validate
from forge_cli.core.errors import ForgeError, GateFailed, UsageError
from forge_cli.core.records import Answer, Example, Quote, Verdict
from forge_cli.validate.split import assign, leakage

MODEL = "smollm2-135m"


def repository(folder: Path, files: int) -> list[Example]:
    for number in range(files):
        lines = [
            f'def job_{number}_{i}(a, b={i}):\n    """Does job {number} {i} of it."""\n'
            f"    return a * {number} + b + {'x' * (i + 1)}_{number}\n"
            for i in range(5)
        ]
        (folder / f"m{number:02}.py").write_text("\n\n".join(lines))
    return list(raft.run(mine.run(folder), distractors=2))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return repository(tmp_path_factory.mktemp("repo"), 24)


def with_oracle(rows: list[Example]) -> Example:
    return next(r for r in rows if any(d.oracle for d in r.documents))


def answer(row: Example, **changes: object) -> Example:
    return row.model_copy(update={"answer": row.answer.model_copy(update=changes)})


def test_each_fault_is_named(rows: list[Example]) -> None:
    good = with_oracle(rows)
    other = next(d for d in good.documents if not d.oracle)
    oracle = next(d for d in good.documents if d.oracle)
    refusal = next(r for r in rows if not any(d.oracle for d in r.documents))
    broken = {
        "altered": answer(good, quotes=[Quote(document=oracle.id, text=oracle.text[:20] + "~")]),
        "distractor": answer(good, quotes=[Quote(document=other.id, text=other.text[:20])]),
        "not shown": answer(good, quotes=[Quote(document="?", text="x")]),
        "unquoted": answer(good, quotes=[]),
        "empty": answer(good, final="  "),
        "unfounded": refusal.model_copy(update={"answer": Answer(reason="", final="42")}),
        "messages": good.model_copy(update={"question": "Another?"}),
        "twice": good,
    }
    expected = {
        "altered": "quote", "distractor": "quote", "not shown": "quote", "unquoted": "founded",
        "empty": "empty", "unfounded": "founded", "messages": "messages", "twice": "duplicate",
    }  # fmt: skip
    for name, row in broken.items():
        verdicts: list[Verdict] = []
        kept = validate.run([*rows, row], model=MODEL, on_reject=verdicts.append)
        assert [v.check for v in verdicts] == [expected[name]], name
        assert len(kept) == len(rows)


def test_rows_that_would_be_cut_off_are_rejected(rows: list[Example]) -> None:
    verdicts: list[Verdict] = []
    kept = validate.run(rows, model=MODEL, max_tokens=300, on_reject=verdicts.append)
    assert verdicts and {v.check for v in verdicts} == {"length"}
    assert len(kept) + len(verdicts) == len(rows)


def test_splits_share_no_document_and_meet_their_shares(rows: list[Example]) -> None:
    reports: list[validate.Report] = []
    found = validate.run(rows, model=MODEL, on_report=reports.append)
    shown = {
        s: {d.text for r in found if r.split == s for d in r.documents} for s in ("train", "test")
    }
    assert not shown["train"] & shown["test"]
    assert reports[0].leaked_documents == 0 and leakage(found) == (0, 0.0)
    counts = Counter(r.split for r in found)
    assert 0.03 < counts["test"] / len(found) < 0.3 and counts["valid"] and counts["train"]
    assert found == validate.run(rows, model=MODEL)


def test_rows_of_a_held_kind_are_only_tested_on(rows: list[Example]) -> None:
    kind = Counter(row.origin.kind for row in rows).most_common(1)[0][0]
    rejects: list[Verdict] = []
    found = validate.run(rows, model="smollm2-135m", held_kinds=[kind], on_reject=rejects.append)
    assert {row.split for row in found if row.origin.kind == kind} == {"test"}
    held = [verdict for verdict in rejects if verdict.check == "held-kind"]
    of_kind = {row.id for row in rows if row.origin.kind == kind}
    assert held and {verdict.id for verdict in held} < of_kind
    with pytest.raises(UsageError, match="held kind nothing: no row is of it"):
        validate.run(rows, model="smollm2-135m", held_kinds=["nothing"])


def test_leakage_is_measured(rows: list[Example]) -> None:
    torn = [r.model_copy(update={"split": ("train", "test")[i % 2]}) for i, r in enumerate(rows)]
    count, share = leakage(torn)
    assert count > 0 and 0 < share <= 1


def test_too_few_files_to_split(tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="need three"):
        assign(repository(tmp_path, 1), test_share=0.15, valid_share=0.1, seed=0)


def test_gates(rows: list[Example]) -> None:
    with pytest.raises(GateFailed, match="min_examples") as caught:
        validate.run(rows, model=MODEL, min_examples=10_000)
    assert caught.value.exit_code == 3
    bad = [answer(row, final=" ") for row in rows[:20]]
    with pytest.raises(GateFailed, match="max_rejects"):
        validate.run([*bad, *rows[20:]], model=MODEL, max_rejects=0.01)
    with pytest.raises(ForgeError, match="rejected"):
        validate.run(bad, model=MODEL)
    with pytest.raises(ForgeError, match="no examples"):
        validate.run([], model=MODEL)


def test_rows_that_the_base_knows_or_cannot_know_are_left_out(
    tmp_path: Path, rows: list[Example]
) -> None:
    from forge_cli.core.events import SILENT
    from forge_cli.models.answer_losses import answer_losses
    from forge_cli.models.load import load_dense
    from tiny_train import save_model

    model = str(save_model(tmp_path / "model"))
    # This tokenizer knows bytes alone: long rows.
    given = validate.run(rows[::30], model=model, max_tokens=20_000)
    found = answer_losses(load_dense(model), [e.messages for e in given], "", SILENT)
    losses = dict(zip([e.id for e in given], found, strict=True))
    ordered = sorted(losses.values())
    least, most = (ordered[2] + ordered[3]) / 2, (ordered[-3] + ordered[-2]) / 2
    refused: list[Verdict] = []
    sound = validate.run(
        given,
        model=model,
        max_tokens=20_000,
        base_loss=[least, most],
        on_reject=refused.append,
    )
    wanted = {id for id, loss in losses.items() if least < loss < most}
    assert {e.id for e in sound} == wanted and len(wanted) == len(given) - 5
    assert {v.check for v in refused} == {"base-loss"}
    assert sum("the base knows" in v.reason for v in refused) == 3
    with pytest.raises(UsageError, match="nothing lies between"):
        validate.run(given, model=model, max_tokens=20_000, base_loss=[2.0, 1.0])
