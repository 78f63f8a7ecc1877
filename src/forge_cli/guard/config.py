"""`guard.yaml`: which repositories, when to retrain, when not to, and what is good enough."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from forge_cli.core.config import Settings, parse_duration
from forge_cli.core.errors import UsageError
from forge_cli.core.yaml_file import read_yaml

FILE = "guard.yaml"


def _duration(text: str) -> str:
    try:
        parse_duration(text)
    except UsageError:
        raise ValueError(f"{text!r} is no time: write for example 90s, 45m or 1h30m") from None
    return text


Duration = Annotated[str, AfterValidator(_duration)]
Share = Annotated[float, Field(ge=0, le=1)]
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(
    r"^(?:(?P<first>mon|tue|wed|thu|fri|sat|sun)(?:-(?P<last>mon|tue|wed|thu|fri|sat|sun))? +)?"
    r"(?P<begin>([01]\d|2[0-3]):[0-5]\d)-(?P<end>([01]\d|2[0-3]):[0-5]\d|24:00)$"
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Repository(_Section):
    """A repository to guard."""

    path: str = Field(description="its folder, from the folder of this file")
    name: str = Field("", description="what its model is deployed as (none: the folder's name)")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="of forge train, for this repository"
    )

    @field_validator("settings")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key in value:
            if key not in Settings.model_fields:
                near = difflib.get_close_matches(key, Settings.model_fields, n=1)
                raise ValueError(
                    f"unknown setting {key}" + f", did you mean {near[0]}?" * bool(near)
                )
        return value


class Watch(_Section):
    """When to look."""

    debounce: Duration = Field("30s", description="quiet time after a change before it is measured")
    every: Duration = Field("6h", description="look at least so often, whatever was noticed")
    files: bool = Field(
        True, description="notice changes of files too; false: commits, tags and hooks alone"
    )


class RetrainWhen(_Section):
    """Any of these asks for a retraining; none where it is left out."""

    drift: Share | None = Field(0.1, description="share of symbols added, changed or gone")
    loss: float | None = Field(
        None, gt=0, description="nats by which answers on new code are less likely than on old"
    )
    score: float | None = Field(
        None, gt=0, le=1, description="answer F1 by which new code is answered worse than old"
    )
    tags: list[str] = Field(default_factory=list, description="globs of tags, such as v*")
    paths: list[str] = Field(
        default_factory=list, description="globs of critical paths: any change there"
    )
    corrections: int | None = Field(
        None, ge=1, description="answers corrected by forge ask --teach since the last retraining"
    )


class HoldWhile(_Section):
    """Any of these holds a retraining back until it is over."""

    hours: list[str] = Field(
        default_factory=list, description="quiet hours, such as mon-fri 09:00-18:00 or 22:00-06:00"
    )
    on_battery: bool = Field(True, description="while the machine is not on power")
    active: Duration | None = Field(
        None, description="while the user typed or pointed within this time"
    )
    uncommitted: bool = Field(False, description="while the working tree has changes")

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: list[str]) -> list[str]:
        for text in value:
            if not _HOURS.match(text):
                raise ValueError(f"hours {text!r}: write mon-fri 09:00-18:00, sun 00:00-24:00 …")
        return value


class Budget(_Section):
    """What may be spent in 24 hours, on each repository."""

    retrainings: int = Field(4, ge=0, description="that are begun in 24 hours")
    time: Duration = Field("8h", description="spent on retraining, judging and exporting")


class Retraining(_Section):
    """How a model is brought up to date."""

    afresh_over: Share = Field(
        0.5, description="from this drift on the base model is trained anew, below it goes on"
    )
    replay: float = Field(0.25, ge=0, description="old rows trained again for each new one")
    least_share: Share = Field(
        0.2, description="of a full training's rows, at least so many; old ones make up the rest"
    )
    hold_share: Share = Field(
        0.3, description="of the changed files held out of this training, to judge it on"
    )


class QualityGates(_Section):
    """What a new model must pass to be deployed; a gate left null is not held."""

    sources: bool = Field(
        True, description="no changed file looks broken, and documentation still fits its code"
    )
    examples: int | None = Field(16, ge=1, description="rows that it was trained on, at least")
    quotes: Share | None = Field(
        0.5, description="share of its held-out answers whose quotes are all verified, at least"
    )
    new: Literal["better", "not worse"] | None = Field(
        "better", description="answer loss on held-out new code, against the deployed model"
    )
    old: Literal["better", "not worse"] | None = Field(
        "not worse", description="answer F1 and correct quotes on held-out old code, against it"
    )
    forgetting: float | None = Field(
        0.1, ge=0, description="answer loss on old code may have risen by so much, at the most"
    )
    parity: bool = Field(True, description="the exported file answers as the trained model does")
    latency: float | None = Field(
        None, gt=0, description="seconds to a token, as a multiple of the deployed model's"
    )
    unknown: Literal["fail", "lean", "pass"] = Field(
        "lean", description="with not enough samples for an interval: fail, pass, or lean: pass "
        "if the mean points the right way"
    )  # fmt: skip
    rules: list[str] = Field(
        default_factory=list, description="more, as of forge eval --gate: new.answer_f1.low > 0"
    )


class Deploy(_Section):
    """Who serves the model."""

    to: Literal["ollama", "directory"] = Field(
        "ollama", description="ollama, or a folder in .forge/guard/served for llama-server"
    )
    smoke_every: Duration = Field("24h", description="the served model is asked again so often")


class GuardConfig(_Section):
    """The whole file."""

    repositories: list[Repository] = Field(min_length=1, description="what is guarded")
    watch: Watch = Watch.model_construct()
    retrain_when: RetrainWhen = RetrainWhen.model_construct()
    hold_while: HoldWhile = HoldWhile.model_construct()
    budget: Budget = Budget.model_construct()
    retraining: Retraining = Retraining.model_construct()
    quality_gates: QualityGates = QualityGates.model_construct()
    deploy: Deploy = Deploy.model_construct()
    templates: str | None = Field(None, description="folder whose report templates come first")
    service: str | None = Field(
        None, description="URL of a forge serve that trains (none: this process)"
    )


def read_config(file: Path) -> GuardConfig:
    """The file, or for a file that is not there a guard of its folder with all defaults.

    Raises:
        UsageError: a key or value is wrong; named with its line.
    """
    values = {key: value for key, (value, _) in read_yaml(file).items()}
    values.setdefault("repositories", [{"path": "."}])
    try:
        return GuardConfig.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        where = f"{file}:{_line_of(file, fault['loc'])}"
        name = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(fault["loc"][-1]), _siblings(fault["loc"]), n=1)
            hint = f"did you mean {near[0]}?" if near else "see: docs/guard.md"
            raise UsageError(f"{where}: {name}: unknown setting", hint) from None
        text = fault["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: {name}: {text}", "see: docs/guard.md") from None


def folder_of(repository: Repository, file: Path) -> Path:
    """The repository's folder, absolute.

    Raises:
        UsageError: there is none.
    """
    path = (file.parent / Path(repository.path).expanduser()).resolve()
    if not path.is_dir():
        raise UsageError(f"{file}: repositories: {path}: no such folder", "mend its path")
    return path


def folders_of(config: GuardConfig, file: Path) -> dict[Path, Repository]:
    """Each repository by its folder, in the order of the file.

    Raises:
        UsageError: a folder is missing or named twice, or two models would have one name.
    """
    found: dict[Path, Repository] = {}
    names: dict[tuple[str, object], Path] = {}
    for one in config.repositories:
        folder = folder_of(one, file)
        if folder in found:
            raise UsageError(f"{file}: repositories: {folder} is there twice", "leave one out")
        found[folder] = one
        name = one.name or folder.name
        other = names.setdefault((name, one.settings.get("host")), folder)
        if other != folder and config.deploy.to == "ollama":
            raise UsageError(
                f"{file}: repositories: {other} and {folder} are both deployed as {name}",
                "give one of them a name",
            )
    return found


def within_hours(text: str, weekday: int, minute: int) -> bool:
    """Whether a time falls into hours such as `mon-fri 22:00-06:00`.

    Hours past midnight belong to the day on which they begin.

    Args:
        weekday: 0 is Monday. minute: of the day.
    """
    found = _HOURS.match(text)
    assert found, "checked when it was read"
    begin, end = (_minutes(found[name]) for name in ("begin", "end"))
    first = _DAYS.index(found["first"]) if found["first"] else 0
    last = _DAYS.index(found["last"]) if found["last"] else (first if found["first"] else 6)
    days = {(first + offset) % 7 for offset in range((last - first) % 7 + 1)}
    if begin < end:
        return weekday in days and begin <= minute < end
    return (weekday in days and minute >= begin) or ((weekday - 1) % 7 in days and minute < end)


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def _line_of(file: Path, place: tuple[int | str, ...]) -> int:
    """The line of the innermost key of `place` that is in the file."""
    node: yaml.Node | None = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _siblings(place: tuple[int | str, ...]) -> list[str]:
    """The keys that might have been meant where `place` ends."""
    model: type[BaseModel] = GuardConfig
    if place[0] == "repositories":
        model = Repository
    elif len(place) > 1:
        section: Any = GuardConfig.model_fields[str(place[0])].annotation
        model = section
    return list(model.model_fields)


__all__ = [
    "FILE", "GuardConfig", "QualityGates", "Repository", "folder_of", "folders_of",
    "parse_duration", "read_config", "within_hours",
]  # fmt: skip
