"""What validation found: in words, as JSON, and for the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forge_cli.core.records import Example, Verdict

_SAMPLES, _REJECTED = 12, 40


@dataclass
class Report:
    """Counts over all examples that were given, and over the sound ones.

    Attributes:
        with_oracle: share of the sound rows whose documents hold the answer.
        positions: how often the (first) oracle stands at each place of a full context.
        position_p: chance of positions at least so uneven if each were as likely
            (chi-square test; small: a model could learn the place instead of reading).
        leaked_documents, leaked_share: of the test documents, those 0.7 alike to a training one.
        quality: see `quality_of`.
        tokens: of each sound row, rendered.
        repairs: what `fix` mended, by name.
    """

    examples: int = 0
    sound: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    with_oracle: float = 0.0
    positions: list[int] = field(default_factory=list)
    position_p: float | None = None
    leaked_documents: int = 0
    leaked_share: float = 0.0
    quality: float = 0.0
    repairs: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    quotes: list[int] = field(default_factory=list)
    samples: list[Example] = field(default_factory=list)
    rejected: list[Verdict] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report in words; the first line alone is a summary."""
        splits = ", ".join(f"{self.splits.get(s, 0)} {s}" for s in ("train", "valid", "test"))
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        even = "" if self.position_p is None else f" (p = {self.position_p:.2g} if all alike)"
        return [
            f"{self.sound} of {self.examples} examples are sound ({splits}); "
            f"{self.with_oracle:.0%} show the oracle; {self.leaked_documents} test documents "
            f"like one in training; quality {self.quality:.2f}",
            f"kinds: {kinds}",
            f"oracle at place 1, 2 …: {', '.join(map(str, self.positions))}{even}",
            *(f"rejected by {check}: {count}" for check, count in sorted(self.rejects.items())),
            *(f"mended {name}: {count}" for name, count in sorted(self.repairs.items())),
            *(f"not checked: {reason}" for reason in self.skipped),
        ]

    def as_json(self) -> dict[str, object]:
        """The figures without the rows."""
        rows = {"tokens", "quotes", "samples", "rejected"}
        return {key: value for key, value in vars(self).items() if key not in rows}


def describe(
    given: int,
    sound: Sequence[Example],
    rejected: Sequence[Verdict],
    lengths: Mapping[str, int],
    repairs: Mapping[str, int],
    leaked: tuple[int, float],
) -> Report:
    """The report of a validation."""
    kinds = Counter(example.origin.kind for example in sound)
    positions = _positions(sound)
    report = Report(
        examples=given,
        sound=len(sound),
        rejects=dict(Counter(verdict.check for verdict in rejected)),
        splits=dict(Counter(str(example.split) for example in sound)),
        kinds=dict(kinds),
        with_oracle=sum(any(d.oracle for d in e.documents) for e in sound) / max(1, len(sound)),
        positions=positions,
        position_p=_uneven(positions),
        leaked_documents=leaked[0],
        leaked_share=leaked[1],
        repairs=dict(repairs),
        tokens=[lengths[e.id] for e in sound if e.id in lengths],
        quotes=[len(quote.text) for e in sound for quote in e.answer.quotes],
        samples=_samples(sound),
        rejected=list(rejected[:_REJECTED]),
    )
    report.quality = quality_of(report)
    return report


def quality_of(report: Report) -> float:
    """From 0 to 1: share of sound rows × evenness of kinds × share of test that is not leaked.

    Evenness is the entropy of the kinds over its largest value (Pielou's J): 1 when all kinds
    are as frequent, 0 when there is one alone.
    """
    if not report.sound:
        return 0.0
    shares = [count / report.sound for count in report.kinds.values()]
    entropy = -sum(share * math.log(share) for share in shares)
    even = entropy / math.log(len(shares)) if len(shares) > 1 else 0.0
    return report.sound / report.examples * even * (1 - report.leaked_share)


def _positions(sound: Sequence[Example]) -> list[int]:
    """Of the rows with one oracle in a context of the full size."""
    size = max((len(e.documents) for e in sound), default=0)
    counts = [0] * size
    for example in sound:
        places = [n for n, d in enumerate(example.documents) if d.oracle]
        if len(places) == 1 and len(example.documents) == size:
            counts[places[0]] += 1
    return counts


def _uneven(counts: Sequence[int]) -> float | None:
    """p of a chi-square test against equal chances; None with fewer than 5 expected each.

    Rows of one context share their oracles' places, so p is smaller than it should be.
    """
    total, cells = sum(counts), len(counts)
    if cells < 2 or total / cells < 5:
        return None
    statistic = sum((n - total / cells) ** 2 / (total / cells) for n in counts)
    # Wilson and Hilferty (1931): the cube root of chi-square over its degrees is nearly normal.
    k = cells - 1
    z = ((statistic / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))
    return 0.5 * math.erfc(z / math.sqrt(2))


def _samples(sound: Sequence[Example]) -> list[Example]:
    """One row of each kind, from places spread over the whole."""
    by_kind: dict[str, list[Example]] = {}
    for example in sound:
        by_kind.setdefault(example.origin.kind, []).append(example)
    kinds = sorted(by_kind)
    return [by_kind[k][len(by_kind[k]) * (n + 1) // (len(kinds) + 1)] for n, k in enumerate(kinds)][
        :_SAMPLES
    ]
