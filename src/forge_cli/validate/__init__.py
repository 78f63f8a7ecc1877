"""Prove that examples are sound and split them without leaks: `validate.run(...)`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from forge_cli.core.errors import ForgeError, GateFailed
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Example, Verdict


@dataclass
class Report:
    """What validation found, for a table or as JSON."""

    examples: int = 0
    sound: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    with_oracle: float = 0.0
    leaked_documents: int = 0

    def lines(self) -> list[str]:
        """The report in words; the first line alone is a summary."""
        splits = ", ".join(f"{self.splits.get(s, 0)} {s}" for s in ("train", "valid", "test"))
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return [
            f"{self.sound} of {self.examples} examples are sound ({splits}); "
            f"{self.with_oracle:.0%} show the oracle; "
            f"{self.leaked_documents} documents shared by train and test",
            f"kinds: {kinds}",
            *(f"rejected by {check}: {count}" for check, count in sorted(self.rejects.items())),
        ]


def run(
    examples: Iterable[Example],
    *,
    model: str,
    max_tokens: int = 2048,
    test_share: float = 0.15,
    valid_share: float = 0.1,
    seed: int = 0,
    min_examples: int = 0,
    max_rejects: float = 1.0,
    on_reject: Callable[[Verdict], None] | None = None,
    on_report: Callable[[Report], None] | None = None,
    reporter: Reporter = SILENT,
) -> list[Example]:
    """The sound examples, each with its split.

    Args:
        model: whose tokenizer and chat template count the tokens.
        min_examples, max_rejects: gates on the count of sound examples and on the share
            of rejected ones.

    Raises:
        GateFailed: a gate said no. ForgeError: nothing sound is left, or too few files.
    """
    from forge_cli.models.load import load_tokenizer
    from forge_cli.models.resolve import resolve
    from forge_cli.validate.checks import FIELD_CHECKS, fits, run_checks, unseen
    from forge_cli.validate.split import assign, leakage

    given = list(examples)
    if not given:
        raise ForgeError("no examples to validate", "run forge raft first")
    tokenizer: Any = load_tokenizer(resolve(model, reporter=reporter))
    checks = [*FIELD_CHECKS, ("duplicate", unseen()), ("length", fits(tokenizer, max_tokens))]
    sound: list[Example] = []
    rejects: Counter[str] = Counter()
    with reporter.task("validating", len(given)) as task:
        for example, check, reason in run_checks(given, checks):
            if not check:
                sound.append(example)
            else:
                rejects[check] += 1
                if on_reject:
                    path = example.origin.path or None
                    on_reject(Verdict(id=example.id, check=check, reason=reason, path=path))
            task.advance()
    if sound:
        sound = assign(sound, test_share=test_share, valid_share=valid_share, seed=seed)
    report = Report(
        examples=len(given),
        sound=len(sound),
        rejects=dict(rejects),
        splits=dict(Counter(str(e.split) for e in sound)),
        kinds=dict(Counter(e.origin.kind for e in sound)),
        with_oracle=sum(any(d.oracle for d in e.documents) for e in sound) / max(1, len(sound)),
        leaked_documents=leakage(sound),
    )
    if on_report:
        on_report(report)
    _gate(report, min_examples, max_rejects)
    return sound


def _gate(report: Report, min_examples: int, max_rejects: float) -> None:
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
    if report.leaked_documents:
        raise GateFailed(f"{report.leaked_documents} documents are in train and test", hint)


__all__ = ["Report", "run"]
