"""A cycle with all that it can hold, over names that are out to break a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.jsonl import write_records
from forge_cli.core.records import Answer, Document, Example, Message, Origin
from forge_cli.core.run_dir import RunDir
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.metrics import score
from forge_cli.evaluate.rows_file import write_rows
from forge_cli.evaluate.statistics import compare
from forge_cli.guard.records import Cycle, Decision, Drift, Gate, Reason
from forge_cli.guard.state import Guarded
from forge_cli.teachers import Completion
from forge_cli.train.callbacks import Metrics
from tiny_loop import batch, train_tiny

HOSTILE = (
    "a|b.py", "`tick`.py", "<script>alert(1)</script>.py", "new\nline.py", "# head.py", "*_x_*.py",
    "</code><img src=x onerror=alert(1)>", "@everyone/#12.py", "\u202egnp.exe", "{{ 7 * 7 }}.py",
)  # fmt: skip


def row(number: int, path: str, limit: int) -> Example:
    """A question about a constant, which stands in its document."""
    text = f"class Cart:\n    limit_{number} = {limit}\n"
    final = f"limit_{number} is {limit}."
    quote = f"limit_{number} = {limit}"
    answer = f"##Reason: It sets it.\n##begin_quote##\n{quote}\n##end_quote##\n##Answer: {final}"
    return Example(
        id=f"row-{number}",
        context_id=f"c{number}",
        documents=[Document(id="d", path=path, symbol="shop.Cart", text=text, oracle=True)],
        question=f"What is `limit_{number}` in <b>{path}</b>?",
        answer=Answer.model_validate(
            {"reason": "It sets it.", "quotes": [{"document": "d", "text": quote}], "final": final}
        ),
        messages=[Message(role="user", content="?"), Message(role="assistant", content=answer)],
        origin=Origin(kind="value", chunk="d", path=path),
        split="test",
    )


def judged(run: Path, before: Path, says: list[tuple[str, str, bool, bool]]) -> None:
    """What a judge writes: (condition, path, deployed right, new right) for each question."""
    questions, old, new = [], [], []
    for number, (condition, path, was, now) in enumerate(says):
        example = row(number, path, 3 + number)
        questions.append(Question(condition, example))
        right = example.messages[-1].content
        wrong = "##Reason: |\n##Answer: <b>99</b> | `no`"
        old.append(Completion(right if was else wrong))
        new.append(Completion(right if now else wrong))
    sides = {str(before): Heard(old), "tuned": Heard(new)}
    scores = {
        name: [score(q.example, a.text) for q, a in zip(questions, heard.answers, strict=True)]
        for name, heard in sides.items()
    }
    # A row whose loss alone is known is in the file too.
    lone = Question("later", row(10_000, "lone.py", 1))
    write_rows(run / "eval" / "update" / "raft.jsonl", questions, [lone], sides, scores)


def with_rows(path: Path, source: Path, rows: list[Example]) -> RunDir:
    """A run of which the rows that it read are known."""
    run = RunDir.open(path, {"model": "smollm2-135m"}, source=str(source))
    write_records(rows, run.file("data", "examples.jsonl"))
    return run


def trained(path: Path, source: Path, rows: list[Example]) -> RunDir:
    """The same, with the curve of a tiny model."""
    run = with_rows(path, source, rows)
    progress, _ = train_tiny(path, [[batch(2, context=n % 3)] for n in range(12)], Metrics())
    run.record(train={"steps": 12, "best_step": 12, "best_valid_loss": progress.best_loss})
    run.finish("train", seconds=3.0)
    run.state["update"] = {"counts": {"fresh": len(rows) - 5, "replayed": 4}}
    run.state["settings"]["adapters"] = "first"
    doubt = {"path": "a|b.py", "check": "binary", "reason": "no <text> | zeros"}
    run.finish("raft", suspects=[doubt])
    return run


def comparison(shift: float, *, loss: bool = False, files: int = 12) -> dict[str, Any]:
    """A real comparison of two sides on 24 rows."""
    base = [0.4 + 0.01 * (n % 5) for n in range(24)]
    tuned = [value + shift + 0.02 * (n % 3 - 1) for n, value in enumerate(base)]
    clusters = [f"f{n % files}" for n in range(24)]
    found = compare(base, tuned, clusters, lower_is_better=loss, resamples=200, seed=0)
    return found.as_dict()


def drift(share: float = 0.31, **changes: Any) -> Drift:
    values: dict[str, Any] = {
        "time": "2026-11-26T20:46:44Z", "commit": "1a2b3c4d5e6f7a8b", "since": "0f1e2d3c4b5a6978",
        "symbols": 120, "added": 14, "changed": 21, "gone": 2, "moved": 3, "share": share,
        "paths": [*HOSTILE, "src/shop/cart.py"], "tags": ["v2.0|rc"],
        "suspicious": ["data.bin.py: 4 KB of <zeros> | no text"], "corrections": 3,
        "to_read": ["src/shop/cart.py: Cart.add <documents> parameters that are not there"],
        "new_rows": 24, "old_rows": 24, "new_loss": 1.21, "old_loss": 0.34,
        "new_score": 0.41, "old_score": 0.88,
    }  # fmt: skip
    return Drift(**values | changes)


def cycle(guarded: Guarded, run: Path, before: Path, **changes: Any) -> Cycle:
    values: dict[str, Any] = {
        "id": "20261126-204644-1a2b3c4", "repository": str(guarded.repository),
        "name": guarded.name, "started": "2026-11-26T20:46:44Z", "ended": "2026-11-26T21:02:10Z",
        "outcome": "deployed", "drift": drift(), "mode": "incremental",
        "decision": Decision(
            wanted=True, held=False, mode="incremental",
            triggers=[
                Reason(rule="drift", says=True, text="31 % differ, more than 10 %"),
                Reason(rule="paths", says=True, text=f"critical: {HOSTILE[0]}, {HOSTILE[1]}"),
                Reason(rule="tags", says=False, text="no new tag matches v*"),
            ],
            holds=[Reason(rule="hours", says=True, text="mon-fri", until="18:00"),
                Reason(rule="on_battery", says=False, text="on power"),],
        ),
        "run": str(run), "before": str(before.relative_to(guarded.repository)),
        "gates": [
            Gate(name="examples", passed=True, text="64 rows, at least 16"),
            Gate(name="new", passed=True, text="answer loss 1.210 → 0.340, better"),
            Gate(name="latency", passed=True, text="1.1 × the deployed model's | at most 1.2 ×"),
        ],
        "comparison": {
            "old": {"answer_f1": comparison(0.0), "quote_correct": comparison(0.0, files=3)},
            "new": {"answer_f1": comparison(0.3), "answer_loss": comparison(-0.3, loss=True)},
        },
        "version": "shop:20261126-2", "previous": "shop:20261120-1",
        "smoke": {"asked": 6, "right": 6}, "seconds": 926.0,
    }  # fmt: skip
    return Cycle(**values | changes)


def symbols() -> list[tuple[str, str, str]]:
    found = [("changed", path, "Cart.total") for path in HOSTILE]
    return [*found, *(("added", "src/shop/cart.py", f"Cart.step_{n}") for n in range(50))]


@dataclass(frozen=True)
class Shop:
    """A repository under guard whose model was just brought up to date.

    Attributes:
        run, before: run directories of the new and of the deployed model.
    """

    guarded: Guarded
    run: Path
    before: Path

    @property
    def cycle(self) -> Cycle:
        return cycle(self.guarded, self.run, self.before)


def shop(folder: Path) -> Shop:
    """24 rows trained of which 4 are old; 24 questions on new code, 10 on old."""
    (folder / "shop").mkdir()
    guarded = Guarded(folder / "shop", "shop")
    found = Shop(guarded, guarded.runs / "second", guarded.runs / "first")
    old = [_as_train(row(n, "src/shop/old.py", n)) for n in range(8)]
    new = [_as_train(row(n, HOSTILE[n % len(HOSTILE)], n)) for n in range(20, 40)]
    with_rows(found.before, guarded.repository, old)
    trained(found.run, guarded.repository, [*old[:4], *new, row(99, "held.py", 1)])
    says = [("later", HOSTILE[n % len(HOSTILE)], False, True) for n in range(24)]
    says += [("given", "src/shop/old.py", True, False)] * 2
    says += [("given", "src/shop/old.py", False, False)] * 3
    says += [("given", "src/shop/cart.py", True, True)] * 5
    judged(found.run, found.before, says)
    for n in range(3):
        guarded.add(drift(0.02 + 0.06 * n, commit=f"{n}abcdef12345"))
    return found


def _as_train(example: Example) -> Example:
    return example.model_copy(update={"split": "train"})
