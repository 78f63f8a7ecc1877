"""What the guardian writes down: of drift, of a decision, of a cycle. Kept as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal[
    "nothing to do", "held", "deployed", "refused", "failed", "rolled back", "still good"
]
Mode = Literal["first", "incremental", "afresh"]


class Kept(BaseModel):
    """The base of what is kept: unknown fields are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Drift(Kept):
    """How far the repository is from what the deployed model was trained on.

    Attributes:
        commit: HEAD when it was measured; empty: no git. since: the commit that was trained on.
        symbols: definitions and texts in either state; share = (added + changed + gone) / symbols.
        paths: of what differs, sorted. tags: on commits since then.
        suspicious: what looks broken rather than new: "path: why".
        to_read: documentation that may be false, too little to call its file broken: "path: why".
        corrections: answers that users corrected since the last retraining.
        run: of the deployed model. contents: hash of what was mined.
        asked: the deployed model was put questions; of too few rows nothing is told all the same.
        new_rows, old_rows: on which loss (nats a token) and score (answer F1) of the deployed
            model were measured; None: not measured.
    """

    time: str
    commit: str = ""
    since: str = ""
    symbols: int
    added: int
    changed: int
    gone: int
    moved: int = 0
    share: float
    paths: list[str] = Field(default_factory=list)
    tags: list[str] = Field(default_factory=list)
    suspicious: list[str] = Field(default_factory=list)
    to_read: list[str] = Field(default_factory=list)
    corrections: int = 0
    run: str = ""
    contents: str = ""
    asked: bool = False
    new_rows: int = 0
    old_rows: int = 0
    new_loss: float | None = None
    old_loss: float | None = None
    new_score: float | None = None
    old_score: float | None = None


class Reason(Kept):
    """One rule and what it says.

    Attributes:
        rule: its name in guard.yaml, such as retrain_when.drift; first, refused and suspicious are
            not of the file. says: whether it asks for, or holds back, a retraining.
        text: why, in words, with the numbers.
        until: of a hold: when it ends, or is to be asked again; empty: by a change, not by time.
    """

    rule: str
    says: bool
    text: str
    until: str = ""


class Decision(Kept):
    """What the rules make of the drift.

    Attributes:
        wanted: a trigger asks for a retraining. held: a hold or the budget forbids it for now.
        mode: how it would be done.
    """

    wanted: bool
    held: bool
    mode: Mode
    triggers: list[Reason]
    holds: list[Reason]

    @property
    def go(self) -> bool:
        """Whether to retrain now."""
        return self.wanted and not self.held


class Gate(Kept):
    """A quality gate and what was found."""

    name: str
    passed: bool
    text: str


class Cycle(Kept):
    """One look at a repository, and all that came of it.

    Attributes:
        id: time and commit, such as 20261126-204644-1a2b3c4. name: of the deployed model.
        run: the new run directory. before: the run that was deployed.
        comparison: "new" and "old" → metric → comparison of the deployed model with the new one.
        version, previous: of the deployed model. seconds: that retraining to deploying took.
        error: why it failed, with what to do. report: path of the page.
    """

    id: str
    repository: str
    name: str
    started: str
    ended: str = ""
    outcome: Outcome
    drift: Drift | None = None
    decision: Decision | None = None
    mode: Mode | None = None
    run: str = ""
    before: str = ""
    gates: list[Gate] = Field(default_factory=list)
    comparison: dict[str, dict[str, Any]] = Field(default_factory=dict)
    version: str = ""
    previous: str = ""
    smoke: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    report: str = ""
