"""A real repository, a tiny model that was trained on it, and copies to change."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from forge_cli.core.config import Settings
from forge_cli.core.events import SILENT
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Chunk
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.config import RetrainWhen
from forge_cli.guard.drift import head
from forge_cli.guard.state import Deployed, Guarded
from forge_cli.pipeline import fit, with_data
from tiny_train import save_model

NEVER = RetrainWhen(drift=None)


def git(folder: Path, *args: str) -> None:
    """Run git as a somebody."""
    who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, "-C", str(folder), *args], check=True, capture_output=True)


def module(n: int, word: str = "job") -> str:
    """Three functions."""
    return "\n\n".join(
        f"def {word}_{n}_{i}(a, b={i}):\n"
        f'    """Does {word} {n} {i} of it, as told, and hands on what came of it."""\n'
        f"    found = a * {n} + b\n    return found\n"
        for i in range(3)
    )


@dataclass
class Trained:
    """A repository and the run that was made of it; not to be changed."""

    repo: Path
    run: Path
    s: Settings

    @property
    def commit(self) -> str:
        """Of what was trained on."""
        return head(self.repo)

    @property
    def deployed(self) -> Deployed:
        """The run as it was deployed."""
        return Deployed(run=str(self.run), tags=["v1"])

    def copied(self, folder: Path) -> Guarded:
        """The repository to change; the caches are shared."""
        shutil.copytree(self.repo, folder / "repo")
        return Guarded(folder / "repo", "repo")


def chunks_of(trained: Trained) -> list[Chunk]:
    """What the run mined."""
    return list(read_records(trained.run / "data" / "chunks.jsonl", Chunk))


@contextmanager
def trained_on(folder: Path) -> Iterator[Trained]:
    """Eighteen modules and a page of text, of one commit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGE_CACHE", str(folder / "cache"))
        repo = folder / "repo"
        repo.mkdir()
        for n in range(18):
            (repo / f"m{n:02}.py").write_text(module(n))
        (repo / "notes.md").write_text("# Notes\n\nWhat is done, and why it is done so.\n")
        git(repo, "init", "-q", "-b", "main")
        git(repo, "add", ".")
        git(repo, "commit", "-q", "-m", "all")
        git(repo, "tag", "v1")
        s = Settings(
            model=str(save_model(folder / "model", max_position_embeddings=8192)),
            max_tokens=4096, rank=2, layers=1, bits=16, init="lora", distractors=1, questions=2,
            steps=1, valid_rows=2, valid_every=1, test_share=0.3, jobs=1,
        )  # fmt: skip
        run = RunDir.open(folder / "run", s.model_dump(), source=str(repo))
        with_data(run, repo, s, SILENT)
        fit(run, s, SILENT)
        yield Trained(repo, run.path, s)
