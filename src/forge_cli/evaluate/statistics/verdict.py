"""One verdict over many comparisons, by rules that were written down before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from forge_cli.evaluate.statistics import Comparison

Outcome = Literal["better", "worse", "no difference shown", "broke something", "not enough samples"]


class Rules(BaseModel):
    """What counts, said before anything was measured. Metrics are named CONDITION.METRIC."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wins: list[str] = Field(
        default_factory=list, description="one of them must be better, none worse"
    )
    guards: dict[str, float] = Field(
        default_factory=dict, description="may be worse by so much at the most"
    )

    @property
    def named(self) -> list[str]:
        """All metrics that decide."""
        return [*self.wins, *self.guards]

    @model_validator(mode="after")
    def _decide_something(self) -> Rules:
        if not self.wins and not self.guards:
            raise ValueError("neither wins nor guards: there is nothing to decide")
        return self


class Verdict(BaseModel):
    """The outcome, and a sentence with numbers for each comparison that decided it."""

    model_config = ConfigDict(frozen=True)

    outcome: Outcome
    reasons: list[str]


def decide(comparisons: Mapping[str, Comparison], rules: Rules) -> Verdict:
    """Apply the rules to corrected comparisons; those that were not made do not count.

    A guard is broken where its metric is worse, and by more than its margin. One that is worse
    comes before any win; without enough samples for a single win there is no verdict. Where
    nothing can win, there is no more than guards to hold.
    """
    wins = {name: comparisons[name] for name in rules.wins if name in comparisons}
    broken = {
        name: found
        for name, margin in rules.guards.items()
        if (found := comparisons.get(name)) is not None
        and found.verdict == "worse"
        and abs(found.difference) > margin
    }
    better, worse, few = (
        {name: found for name, found in wins.items() if found.verdict == verdict}
        for verdict in ("better", "worse", "not enough samples")
    )
    if broken:
        return _verdict("broke something", broken)
    if not rules.wins:
        guarded = {name: comparisons[name] for name in rules.guards if name in comparisons}
        return _verdict("no difference shown", guarded)
    if len(few) == len(wins):
        return _verdict("not enough samples", few)
    if worse:
        return _verdict("broke something" if better else "worse", worse)
    if better:
        return _verdict("better", better)
    return _verdict("no difference shown", wins)


def combine(verdicts: Mapping[str, Verdict]) -> Verdict:
    """One verdict over several suites: harm in any of them counts, else the first decides.

    Args:
        verdicts: by the name of the suite, the one that decides first.
    """
    if len(verdicts) == 1:
        return next(iter(verdicts.values()))
    found = [verdict.outcome for verdict in verdicts.values()]
    harm: tuple[Outcome, ...] = ("broke something", "worse")
    outcome = next((one for one in harm if one in found), found[0])
    if outcome == "worse" and "better" in found:
        outcome = "broke something"
    reasons = [
        f"{name} {verdict.outcome}: {reason}"
        for name, verdict in verdicts.items()
        for reason in verdict.reasons
    ]
    return Verdict(outcome=outcome, reasons=reasons)


def _verdict(outcome: Outcome, because: Mapping[str, Comparison]) -> Verdict:
    reasons = [f"{name}: {sentence(found)}" for name, found in because.items()]
    return Verdict(outcome=outcome, reasons=reasons or ["nothing that counts was measured"])


def sentence(found: Comparison) -> str:
    """A comparison in words, with its numbers."""
    said = (
        f"{found.base:.3f} → {found.tuned:.3f}, {found.difference:+.3f} "
        f"[{found.low:+.3f}, {found.high:+.3f}], {found.verdict} "
        f"({found.n} rows, {found.clusters} files)"
    )
    if found.verdict == "no difference shown" and found.detectable is not None:
        said += f"; one of {found.detectable:.3f} would have been seen in 8 of 10 cases"
    return said
