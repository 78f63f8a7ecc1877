"""Which repository is asked, what of it is shown, and which model answers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from forge_cli.core.accelerator import accelerator
from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Chunk
from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.data import mine_chunks
from forge_cli.pipeline.deploying import registry_file

if TYPE_CHECKING:
    from forge_cli.ask import Reply
    from forge_cli.ask.answerers import Answerer

_RUNS = Path(".forge") / "runs"
_GUARDED = Path(".forge") / "guard"
_VIA = "give mlx, mlx:MODEL, ollama:NAME or openai:NAME"


@dataclass(frozen=True)
class Asked:
    """An answer, and the top of the repository that it is about."""

    reply: Reply
    repository: Path

    @property
    def corrections(self) -> Path:
        """Where corrections of answers about this repository are kept."""
        return self.repository / ".forge" / "corrections.jsonl"


def ask(
    question: str,
    s: Settings,
    *,
    repo: Path | None = None,
    run: Path | None = None,
    via: str = "mlx",
    url: str | None = None,
    count: int | None = None,
    reporter: Reporter,
) -> Asked:
    """Answer a question about a repository from what it holds now.

    Args:
        repo: what to look in (None: what the run was trained on, else the repository around us).
        run: None: what is deployed of this repository, else its newest run.
        via: mlx, mlx:MODEL, ollama:NAME or openai:NAME. url: of that server.
        count: documents to show (None: as many as training did).

    Raises:
        UsageError: no such repository, run or kind of model, or the question is empty.
        ForgeError: nothing can be mined there, the model cannot be loaded or reached.
    """
    from forge_cli import ask as stage

    question = stage.checked_question(question)
    chosen = RunDir.load(run) if run else None
    place = repo or (repository_of(chosen) if chosen else None) or top_of(Path())
    top = top_of(place)
    if chosen is None and via == "mlx":
        chosen = default_run(top, reporter)
    if chosen:
        own = chosen.state["settings"]
        # Cut as the model has learned to read them.
        known = {key: own[key] for key in ("max_chars", "distractors", "model") if key in own}
        s = s.model_copy(update=known)
    answerer = _answerer(via, s, chosen, url, reporter)
    found = retrieve(question, place, s, count or s.distractors + 1, reporter)
    with accelerator(reporter):
        return Asked(stage.run(question, found, answerer, reporter=reporter), top)


def retrieve(
    question: str, place: Path, s: Settings, count: int, reporter: Reporter
) -> list[Chunk]:
    """The chunks of a place, as it is now, that BM25 finds for a question, best first.

    Definitions that the question names go before all others.

    Raises:
        UsageError: there is no such path. ForgeError: it holds nothing to mine or to show.
    """
    from forge_cli.evaluate.retrieval import Retriever

    mined = mine_chunks(place, s.model_copy(update={"lang": []}), reporter)
    # What cells of notebooks put out is shown to no model.
    chunks = [chunk for chunk in mined if chunk.kind != "output"]
    by_id = {chunk.id: chunk for chunk in chunks}
    found = [by_id[document.id] for document in Retriever(chunks).find(question, len(chunks))]
    if not found:
        raise ForgeError(
            f"{place}: no text of it is long enough to be shown", "is it the right one?"
        )
    words = [word.strip(".") for word in re.findall(r"[\w.]+", question)]
    named = {
        chunk.id: max(_named(chunk.symbol or "", question), _qualified(chunk, words))
        for chunk in found
    }
    # Stable. Of a definition in parts the first one, which declares it, comes first.
    found.sort(key=lambda chunk: (-named[chunk.id], chunk.part if named[chunk.id] else 0))
    return found[:count]


def _named(symbol: str, question: str) -> int:
    """How surely a question names a definition: 2 by all of its name, 1 by the last part, or 0."""
    last = symbol.rpartition(".")[2]
    if not last or last not in question:
        return 0
    if "." in symbol and re.search(rf"(?<![\w.]){re.escape(symbol)}(?!\w)", question):
        return 2
    # `run` and run() are names; the word alone may be a word.
    sure = rf"(?<!\w){re.escape(last)}\("
    # Between any two backticks; one expression for all of it takes time by the square.
    if any(re.search(rf"\b{re.escape(last)}\b", part) for part in question.split("`")[1:-1]):
        return 1
    if "_" in last.strip("_") or not last.islower():
        sure = rf"(?<!\w){re.escape(last)}(?!\w)"
    return int(bool(re.search(sure, question)))


def _qualified(chunk: Chunk, words: Collection[str]) -> int:
    """2 where a word is the definition's name after that of its module, or of packages above."""
    places, end = set(chunk.path.rpartition(".")[0].split("/")), f".{chunk.symbol}"
    heads = [word.removesuffix(end).split(".") for word in words if word.endswith(end)]
    return 2 * any(places.issuperset(head) for head in heads)


def top_of(path: Path) -> Path:
    """The top of the repository that a path is in; the path itself outside of git."""
    from forge_cli.mine.history import git

    path = path.resolve()
    found = git(path, "rev-parse", "--show-toplevel") if path.is_dir() else None
    return Path(found.strip()) if found else path


def repository_of(run: RunDir) -> Path | None:
    """What a run was trained on, or the run whose adapters it went on from; None if unknown."""
    seen: set[Path] = set()
    while run.path.resolve() not in seen:
        seen.add(run.path.resolve())
        source = str(run.state.get("source", ""))
        if source and not source.startswith("sha256:"):
            return Path(source) if Path(source).is_dir() else None
        adapters = run.state.get("settings", {}).get("adapters")
        folder = Path(adapters) if adapters else None
        if folder and folder.name == "adapters":
            folder = folder.parent
        if folder is None or not (folder / "run.json").is_file():
            return None
        run = RunDir.load(folder)
    return None


def default_run(top: Path, reporter: Reporter) -> RunDir | None:
    """The run of a repository that was deployed last, else the one that was trained last."""
    for _, folder, name in sorted(_deployed(top), reverse=True):
        if (folder / "run.json").is_file() and _is_of(folder, top):
            reporter.note(f"answers with {folder}, deployed as {name}")
            return RunDir.load(folder)
    trained = sorted(_trained(top), key=lambda pair: pair[0])
    if trained:
        run = trained[-1][1]
        reporter.note(f"answers with {run.path}")
        return run
    reporter.note(
        f"no run of {top} in {_RUNS}: the base model answers, which has not learned to quote; "
        "forge train makes one, --run names one"
    )
    return None


def _deployed(top: Path) -> Iterator[tuple[float, Path, str]]:
    """(when, run, name) of what servers serve, and of what a guardian put into its folder."""
    from forge_cli.deploy.registry import Registry

    when = 0.0
    for entry in Registry(registry_file()).served():
        if entry.source:
            # In their order: what was rolled back to is served later than its own time tells.
            when = max(when + 1e-6, datetime.fromisoformat(entry.time).timestamp())
            yield when, Path(entry.source), entry.name
    link = top / _GUARDED / "served" / "current"
    if link.is_symlink():
        version = link.readlink().name  # is its run's name too
        yield link.lstat().st_mtime, (top / _GUARDED / "runs" / version).resolve(), str(link)


def _trained(top: Path) -> Iterator[tuple[float, RunDir]]:
    """(when its adapters were written, run) of each trained run of a repository."""
    folders = {path.resolve() for place in (Path(), top) for path in (place / _RUNS).glob("*/")}
    for folder in sorted(folders):
        adapters = folder / "adapters" / "adapters.safetensors"
        if adapters.is_file() and (folder / "run.json").is_file() and _is_of(folder, top):
            run = RunDir.load(folder)
            if run.is_done("train"):
                yield adapters.stat().st_mtime, run


def _is_of(folder: Path, top: Path) -> bool:
    try:
        repository = repository_of(RunDir.load(folder))
    except ForgeError:  # a broken run is no answer, and no reason to give none
        return False
    return repository is not None and top_of(repository) == top


def _answerer(
    via: str, s: Settings, run: RunDir | None, url: str | None, reporter: Reporter
) -> Answerer:
    from forge_cli.ask.answerers import MlxAnswerer, ServerAnswerer

    kind, _, model = via.partition(":")
    if via == "mlx":
        if run is None:
            return MlxAnswerer(s.model, reporter)
        if not run.is_done("train"):
            raise UsageError(f"{run.path}: not trained yet", "run: forge train")
        return MlxAnswerer(run.path / "adapters", reporter)
    if not model or kind not in ("mlx", "ollama", "openai"):
        raise UsageError(f"--via {via}: not known", _VIA)
    if kind == "mlx":
        return MlxAnswerer(model, reporter)
    from forge_cli.teachers import open_teacher
    from forge_cli.teachers.openai import OpenAITeacher

    teacher = open_teacher(via, url=url)
    assert isinstance(teacher, OpenAITeacher)
    teacher.backoff = 0.1  # somebody waits: a server that is down is told of soon
    return ServerAnswerer(teacher)
