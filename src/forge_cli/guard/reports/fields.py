"""What a report's template can use: plain values, the same for Markdown and for HTML.

`docs/reports.md` is made from these fields. No field is named like a method of a dict, which
Jinja would find first.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Fields(BaseModel):
    """The base of all: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChangedPath(Fields):
    """A file with what differs in it; a symbol without a name is a text."""

    path: str
    number: int | None = Field(description="symbols that differ in it; none: not told")
    added: list[str] = Field(description="symbols, dotted")
    changed: list[str]
    gone: list[str]
    more: int = Field(description="symbols that are in none of these lists")


class DriftFields(Fields):
    """How far the repository is from what the deployed model was trained on."""

    time: str
    commit: str = Field(description="that was measured; empty: no git")
    since: str = Field(description="the commit that the deployed model was trained on")
    symbols: int = Field(description="definitions and texts in either state")
    added: int
    changed: int
    gone: int
    moved: int
    share: float = Field(description="(added + changed + gone) / symbols")
    tags: list[str] = Field(description="on commits since then")
    suspicious: list[str] = Field(description="what looks broken rather than new: path: why")
    to_read: list[str] = Field(description="documentation that may be false: path: why")
    corrections: int = Field(description="answers corrected since the last retraining")
    new_rows: int = Field(description="questions about new code that the deployed model was asked")
    old_rows: int = Field(description="questions about old code")
    new_loss: float | None = Field(description="its answer loss there, nats a token")
    old_loss: float | None
    new_score: float | None = Field(description="its answer F1 there")
    old_score: float | None
    most_changed: list[ChangedPath] = Field(description="files, what differs most first")
    more_paths: int = Field(description="files that are not in most_changed")


class Measured(Fields):
    """One measurement of drift, for the history."""

    time: str
    commit: str
    share: float


class ReasonFields(Fields):
    """One rule of guard.yaml and what it says."""

    rule: str
    says: bool = Field(description="whether it asks for, or holds back, a retraining")
    text: str
    until: str = Field(description="when a hold ends; empty: by a change, not by time")


class DecisionFields(Fields):
    """What the rules make of the drift."""

    wanted: bool = Field(description="a trigger asks for a retraining")
    held: bool = Field(description="a hold or the budget forbids it for now")
    mode: str = Field(description="first, incremental or afresh")
    triggers: list[ReasonFields]
    holds: list[ReasonFields]


class GateFields(Fields):
    """A quality gate and what was found."""

    name: str
    passed: bool
    text: str


class Compared(Fields):
    """One metric of the deployed model and the new one, on the same held-out rows."""

    code: str = Field(description="new, old or, for a first model, held-out code")
    metric: str = Field(description="its name in words")
    means: str = Field(description="what it measures, in a sentence")
    deployed: float
    new: float
    difference: float = Field(description="new − deployed")
    low: float = Field(description="of the difference's 95 % interval")
    high: float
    rows: int
    files: int
    verdict: str = Field(description="better, worse, no difference shown or not enough samples")


class Tally(Fields):
    """A name and how many."""

    name: str
    number: int


class Suspect(Fields):
    """A file whose new content was not trusted."""

    path: str
    reason: str


class Training(Fields):
    """What training read and how it went."""

    base: str = Field(description="the model that the adapters are for")
    begun_from: str = Field(description="run whose adapters it goes on from; empty: from the base")
    train_rows: int
    valid_rows: int
    test_rows: int
    replayed: int | None = Field(description="train rows about old code; none: not an update")
    kinds: list[Tally] = Field(description="train rows by kind of question, the most first")
    read: list[Tally] = Field(description="files with their train rows, the most first")
    more_read: int = Field(description="files that are not in read")
    suspects: list[Suspect] = Field(description="files that it did not learn from, and why")
    steps: int
    seconds: float = Field(description="of all steps")
    tokens: int
    peak_bytes: int
    first_loss: float | None = Field(description="validation loss where taken, else training loss")
    last_loss: float | None
    best_valid_loss: float | None
    sparkline: str = Field(description="that loss by step as block characters")


class Answered(Fields):
    """A held-out question with what both models made of it."""

    question: str
    code: str = Field(description="new code or old code")
    symbol: str = Field(description="of the document that holds the answer; may be empty")
    deployed: str = Field(description="the deployed model's answer, shortened")
    new: str = Field(description="the new model's answer, shortened")
    reference: str = Field(description="what is right, shortened")


class Module(Fields):
    """The questions about one file."""

    path: str
    number: int = Field(description="of all such questions about it, shown or not")
    answers: list[Answered]


class Answers(Fields):
    """One of the three lists of a release note."""

    number: int = Field(description="questions, shown or not")
    more: int = Field(description="that are not shown")
    modules: list[Module]


class Asked(Fields):
    """How both models did on new, or on old, code."""

    code: str
    number: int = Field(description="questions asked")
    deployed: int = Field(description="that the deployed model had right")
    new: int = Field(description="that the new model has right")
    gained: int = Field(description="wrong before, right now")
    lost: int = Field(description="right before, wrong now")
    p: float = Field(description="two-sided sign test of gained against lost")
    says: str = Field(description="what that tells, or that it tells nothing")


class Note(Fields):
    """What the new model newly knows, what it forgot, what it still gets wrong."""

    asked: list[Asked] = Field(description="new code, then old code, as far as asked")
    total: int = Field(description="questions asked of both")
    knows: Answers = Field(description="the deployed model had it wrong, the new one right")
    forgot: Answers = Field(description="the deployed model had it right, the new one wrong")
    wrong: Answers = Field(description="both have it wrong")
    still_right: int = Field(description="both have it right")


class Pictures(Fields):
    """SVG elements for HTML; empty where there is none. The filter svg prints them."""

    loss: str = Field("", description="loss by step")
    drift: str = Field("", description="drift by time")


class Facts(Fields):
    """All that a template can name."""

    id: str = Field(description="of the cycle: time and commit")
    repository: str = Field(description="the folder's name")
    model: str = Field(description="what the model is deployed as")
    outcome: str = Field(description="nothing to do, held, deployed, refused, failed …")
    headline: str = Field(description="the outcome in a sentence")
    good: bool | None = Field(description="whether that is good news; none: neither")
    started: str
    ended: str
    seconds: float = Field(description="from retraining to deploying")
    mode: str = Field(description="first, incremental or afresh; empty: nothing was trained")
    error: str = Field(description="why it failed, and what to do")
    commit: str = Field(description="short; empty: no git")
    run: str = Field(description="name of the new run")
    before: str = Field(description="name of the run that was deployed")
    version: str = Field(description="of the new model where it is served")
    previous: str = Field(description="the version before it")
    rollback: str = Field(description="command that goes back; empty: there is nothing to undo")
    drift: DriftFields | None
    history: list[Measured] = Field(description="measurements of drift, the newest first")
    decision: DecisionFields | None
    gates: list[GateFields]
    comparisons: list[Compared]
    training: Training | None
    against: str = Field(description="the other model: deployed, or base for a first one")
    note: Note | None = Field(description="none: no answers of both models are kept")
    smoke: list[Tally] = Field(description="what the served model made of its smoke questions")
    pictures: Pictures
    unread: list[str] = Field(description="files of the run that cannot be read, and why")
    fault: str = Field(description="why a template of yours was not used for this page")


__all__ = [
    "Answered", "Answers", "Asked", "ChangedPath", "Compared", "DecisionFields", "DriftFields",
    "Facts", "Fields", "GateFields", "Measured", "Module", "Note", "Pictures", "ReasonFields",
    "Suspect", "Tally", "Training",
]  # fmt: skip
