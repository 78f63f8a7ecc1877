"""Prove that examples are sound and split them without leaks: `validate.run(...)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from forge_cli.core.errors import ForgeError, GateFailed, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Example, Verdict
from forge_cli.validate.report import Report, describe

if TYPE_CHECKING:
    from forge_cli.validate.form import Check

_BATCH = 512  # rows


def run(
    examples: Iterable[Example],
    *,
    model: str,
    max_tokens: int = 2048,
    test_share: float = 0.15,
    valid_share: float = 0.1,
    split: str = "file",
    held_kinds: Sequence[str] = (),
    seed: int = 0,
    min_examples: int = 0,
    max_rejects: float = 1.0,
    min_quality: float = 0.0,
    fix: bool = False,
    base_loss: Sequence[float] | None = None,
    on_reject: Callable[[Verdict], None] | None = None,
    on_report: Callable[[Report], None] | None = None,
    reporter: Reporter = SILENT,
) -> list[Example]:
    """The sound examples, each with its split.

    Args:
        model: whose tokenizer and chat template count the tokens.
        split: "file" (drawn by seed) or "time" (what changed last is tested); "test": all of it,
            where none of it is to be trained on.
        held_kinds: of questions, whose rows are rejected but for those of split "test": the judge
            asks them to tell what was learned of the code from what was learned of the questions.
        min_examples, max_rejects, min_quality: gates on the count of sound examples, on the
            share of rejected ones, and on `report.quality_of`.
        fix: mend what can be mended without a doubt before it is checked.
        base_loss: (least, most) mean loss of the answer under `model`, in nats a token; rows
            outside are rejected. None: the model is not run.

    Raises:
        GateFailed: a gate said no. ForgeError: nothing sound is left, or too few files.
        UsageError: a split by time of rows without the time of a commit; bounds in no order.
    """
    from forge_cli.validate.repair import repair
    from forge_cli.validate.split import assign, leakage

    given = list(examples)
    if not given:
        raise ForgeError("no examples to validate", "run forge raft first")
    repairs: Counter[str] = Counter()
    rows = [repair(example, repairs) for example in given] if fix else given
    lengths: dict[str, int] = {}
    sound, rejected = _judge(rows, model, max_tokens, lengths, reporter)
    if base_loss and sound:
        sound, useless = _by_base_loss(sound, model, base_loss, reporter)
        rejected += useless
    leaked = (0, 0.0)
    if sound:
        sound = assign(sound, test_share=test_share, valid_share=valid_share, seed=seed, by=split)
        sound, held = _hold_kinds(sound, held_kinds)
        rejected += held
        leaked = leakage(sound)
    for verdict in rejected:
        if on_reject:
            on_reject(verdict)
    report = describe(len(given), sound, rejected, lengths, repairs, leaked)
    report.skipped = _not_checked()
    if on_report:
        on_report(report)
    _gate(report, min_examples, max_rejects, min_quality)
    return sound


def _judge(
    rows: Sequence[Example],
    model: str,
    max_tokens: int,
    lengths: dict[str, int],
    reporter: Reporter,
) -> tuple[list[Example], list[Verdict]]:
    """The sound rows, and a verdict with the first check that fails for each of the others."""
    from forge_cli.models.load import load_tokenizer
    from forge_cli.models.resolve import resolve
    from forge_cli.validate.duplicates import near_duplicates
    from forge_cli.validate.form import too_long

    tokenizer: Any = load_tokenizer(resolve(model, reporter=reporter))
    checks = _checks()
    sound: list[Example] = []
    rejected: list[Verdict] = []
    with reporter.task("validating", len(rows)) as task:
        for at in range(0, len(rows), _BATCH):
            batch = rows[at : at + _BATCH]
            for example, reason in zip(
                batch, too_long(batch, tokenizer, max_tokens, lengths), strict=True
            ):
                reasons = ((name, check(example)) for name, check in checks)
                found = next(((name, why) for name, why in reasons if why), None)
                found = found or (("length", reason) if reason else None)
                if found:
                    rejected.append(_verdict(example, *found))
                else:
                    sound.append(example)
            task.advance(len(batch))
    twins = near_duplicates(sound)
    rejected += [
        _verdict(e, "near-duplicate", f"0.9 alike to row {twins[e.id]}")
        for e in sound
        if e.id in twins
    ]
    return [e for e in sound if e.id not in twins], rejected


def _hold_kinds(
    rows: Sequence[Example], kinds: Sequence[str]
) -> tuple[list[Example], list[Verdict]]:
    """The rows without those of `kinds` that would train, and a verdict for each of these."""
    if unknown := set(kinds) - {row.origin.kind for row in rows}:
        known = ", ".join(sorted({row.origin.kind for row in rows}))
        raise UsageError(f"held kind {min(unknown)}: no row is of it", f"there are: {known}")
    held = [row for row in rows if row.origin.kind in kinds and row.split != "test"]
    verdicts = [_verdict(row, "held-kind", "of a kind that is only tested on") for row in held]
    ids = {row.id for row in held}
    return [row for row in rows if row.id not in ids], verdicts


def _by_base_loss(
    rows: Sequence[Example], model: str, bounds: Sequence[float], reporter: Reporter
) -> tuple[list[Example], list[Verdict]]:
    from forge_cli.validate.base_loss import out_of_bounds

    least, most = bounds
    if least >= most:
        raise UsageError(f"base_loss {least:g} {most:g}: nothing lies between", "least, then most")
    judged = list(zip(rows, out_of_bounds(rows, model, least, most, reporter), strict=True))
    refused = [_verdict(row, "base-loss", why) for row, why in judged if why]
    return [row for row, why in judged if not why], refused


def _checks() -> list[tuple[str, Check]]:
    """What each row must pass but for its length, cheap and telling checks first."""
    from forge_cli.validate import contamination, content, duplicates, form, truth

    checks: list[tuple[str, Check]] = [
        ("empty", form.not_empty),
        ("quote", form.quote_in_oracle),
        ("founded", form.answer_is_founded),
        ("messages", form.messages_match),
        ("truth", truth.answer_is_true),
        ("secret", content.no_secret),
        ("personal", content.nobody_named),
        ("licence", content.no_licence),
        ("junk", content.readable),
    ]
    if contamination.is_available():
        checks.append(("humaneval", contamination.unlike_humaneval))
    # Last: they remember the rows that they see, which should be sound ones.
    return [
        *checks,
        ("duplicate", duplicates.unseen()),
        ("contradiction", duplicates.consistent()),
    ]


def _verdict(example: Example, check: str, reason: str) -> Verdict:
    return Verdict(id=example.id, check=check, reason=reason, path=example.origin.path or None)


def _not_checked() -> list[str]:
    from forge_cli.validate import contamination

    if contamination.is_available():
        return []
    return ["HumanEval contamination (pip install 'forge-cli[decontaminate]')"]


def _gate(report: Report, min_examples: int, max_rejects: float, min_quality: float) -> None:
    hint = "see why with --rejects FILE"
    if report.sound < min_examples:
        raise GateFailed(
            f"gate min_examples: {report.sound} sound examples, {min_examples} wanted", hint
        )
    share = 1 - report.sound / report.examples
    if share > max_rejects:
        raise GateFailed(f"gate max_rejects: {share:.1%} rejected, {max_rejects:.1%} allowed", hint)
    if not report.sound:
        raise ForgeError(f"all {report.examples} examples were rejected", hint)
    if report.quality < min_quality:
        raise GateFailed(
            f"gate min_quality: {report.quality:.2f}, {min_quality:.2f} wanted",
            "look at it with --report report.html",
        )
    if report.leaked_documents:
        raise GateFailed(f"{report.leaked_documents} test documents are like one in training", hint)


__all__ = ["Report", "run"]
