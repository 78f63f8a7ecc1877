"""Who serves the guarded model: Ollama, or a folder that llama-server is started on.

Both keep versions, move the name last, ask before they move it, and can go back.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from forge_cli import pipeline
from forge_cli.core.answer_form import SYSTEM
from forge_cli.core.config import Settings
from forge_cli.core.errors import ForgeError, GateFailed
from forge_cli.core.events import Reporter
from forge_cli.core.run_dir import RunDir
from forge_cli.guard.config import GuardConfig
from forge_cli.guard.state import Guarded

if TYPE_CHECKING:
    from forge_cli.deploy.smoke import Question, SmokeAnswer
    from forge_cli.models.llama_server import LlamaServer


@dataclass(frozen=True)
class Served:
    """What is served now.

    Attributes:
        previous: the version before. asked, passed: smoke questions.
    """

    version: str
    previous: str
    asked: int
    passed: int


class Target(Protocol):
    """Who serves."""

    def hindrance(self) -> str:
        """Why nothing could be deployed there now, and what to do; empty: nothing is in the way."""

    def deploy(self, run: RunDir, reporter: Reporter) -> Served:
        """Serve the run's smallest file; what was served before stays if this fails.

        Raises:
            GateFailed: smoke questions. ForgeError: the server, or nothing is exported.
        """

    def check(self, run: RunDir, reporter: Reporter) -> tuple[int, int]:
        """Ask what is served questions that the run's model is known to answer: asked, passed.

        Raises:
            GateFailed: too few are answered so. ForgeError: no server.
        """

    def roll_back(self, reporter: Reporter) -> str:
        """Serve the version before; its name.

        Raises:
            ForgeError: there is none.
        """


def target_of(config: GuardConfig, guarded: Guarded, settings: Settings) -> Target:
    """The one that `deploy.to` names."""
    if config.deploy.to == "ollama":
        return OllamaTarget(guarded.name, settings)
    return FolderTarget(guarded.name, settings, guarded.folder / "served")


def hindrance(config: GuardConfig, target: Target) -> str:
    """Why no new model could be checked or deployed now, and what to do; empty: nothing."""
    from forge_cli.models import llamacpp

    if config.quality_gates.parity and not llamacpp.available():
        return (
            "llama.cpp is not installed, which checks what is exported: "
            "pip install '.[guard,parity]', or quality_gates: {parity: false}"
        )
    return target.hindrance()


class OllamaTarget:
    """A name on an Ollama server."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.settings = name, settings

    def hindrance(self) -> str:
        """See `Target.hindrance`."""
        from forge_cli.deploy.address import check_name, server_url
        from forge_cli.deploy.ollama import Server

        try:
            check_name(self.name)
        except ForgeError as error:
            return f"{error.message}: name it in guard.yaml"
        try:
            with Server(server_url(self.settings.host)) as server:
                server.version()
        except ForgeError as error:
            return f"{error.message}: start it, or deploy to: directory"
        return ""

    def deploy(self, run: RunDir, reporter: Reporter) -> Served:
        """See `Target.deploy`."""
        pipeline.deploy(run, self.settings, name=self.name, dry_run=False, reporter=reporter)
        found = run.state["metrics"]["deploy"]
        smoke = found["smoke"]
        return Served(found["version"], found["previous"], smoke["asked"], smoke["passed"])

    def check(self, run: RunDir, reporter: Reporter) -> tuple[int, int]:
        """See `Target.check`."""
        from forge_cli.deploy.address import full_name, server_url
        from forge_cli.deploy.ollama import Server
        from forge_cli.deploy.smoke import HELLO, ask

        questions = _questions(run, self.settings) or [HELLO]
        name = full_name(self.name)
        with Server(server_url(self.settings.host)) as server:
            server.version()
            try:
                return _counted(ask(server, name, questions, SYSTEM, reporter))
            except GateFailed:
                raise
            except ForgeError as error:
                if error.transient:
                    raise
                # The server answers and the model does not.
                raise GateFailed(f"{name}: {error.message}", error.hint) from None

    def roll_back(self, reporter: Reporter) -> str:
        """See `Target.roll_back`."""
        from forge_cli import deploy as stage

        return stage.roll_back(
            self.name,
            host=self.settings.host,
            registry=pipeline.registry_file(),
            reporter=reporter,
        )


class FolderTarget:
    """`served/VERSION/` for each version, and `served/current`, a link to one of them."""

    def __init__(self, name: str, settings: Settings, folder: Path) -> None:
        self.name, self.settings, self.folder = name, settings, folder

    def hindrance(self) -> str:
        """See `Target.hindrance`."""
        from forge_cli.models.llama_server import program

        if program() is None:
            return "llama-server, which asks the model, is not installed: pip install '.[parity]'"
        return ""

    def deploy(self, run: RunDir, reporter: Reporter) -> Served:
        """See `Target.deploy`."""
        version, before = run.path.name, self._current()
        if version == before:  # a guardian was killed after this: nothing is taken from under users
            try:
                return Served(version, "", *self.check(run, reporter))
            except GateFailed as error:
                reporter.note(f"{error.message}: it is written anew")
        folder = self.folder / version
        # What a guardian left that was killed, or whose disk was full.
        shutil.rmtree(folder, ignore_errors=True)
        try:
            pipeline.write_directory(
                run, "llama-server", self.settings, name=version, folder=self.folder,
                reporter=reporter,
            )  # fmt: skip
            asked, passed = self._ask(folder, run, reporter)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._point(version)
        self._prune({version, before})
        return Served(version, before, asked, passed)

    def check(self, run: RunDir, reporter: Reporter) -> tuple[int, int]:
        """See `Target.check`."""
        return self._ask(self.folder / "current", run, reporter)

    def roll_back(self, reporter: Reporter) -> str:
        """See `Target.roll_back`."""
        current = self._current()
        for version in reversed([one for one in self._versions() if one < current]):
            try:
                self._ask(self.folder / version, None, reporter)
            except GateFailed as error:
                reporter.note(error.message)
                continue
            self._point(version)
            reporter.note(f"{self.folder / 'current'} is {version} again")
            # A later rollback must not come back to it.
            shutil.rmtree(self.folder / current, ignore_errors=True)
            return version
        raise ForgeError(
            f"{self.folder}: there is no version before {current or 'the first'} that answers",
            "nothing was changed; train anew: forge guard once --force",
        )

    def _ask(self, folder: Path, run: RunDir | None, reporter: Reporter) -> tuple[int, int]:
        """Its questions, or a hello; a server that is not there is no word about the model."""
        from forge_cli.deploy.smoke import HELLO, ask
        from forge_cli.models.llama_server import LlamaServer, program

        if program() is None:
            raise ForgeError(self.hindrance(), "then: forge guard once")
        files = sorted(folder.glob("*.gguf"))
        if not files:
            raise GateFailed(f"{folder}: no model is served from there", "forge guard once")
        questions = (_questions(run, self.settings) if run else []) or [HELLO]
        try:
            server = LlamaServer(files[0], n_ctx=self.settings.num_ctx or 4096)
        except ForgeError as error:
            raise GateFailed(
                f"{folder}: is not to be served: {error.message}", error.hint
            ) from None
        with server:
            # It keeps no system text: each question brings its own.
            answers = ask(_Chats(server), self.name, questions, "", reporter)
        return _counted(answers)

    def _current(self) -> str:
        link = self.folder / "current"
        return str(link.readlink()) if link.is_symlink() else ""

    def _point(self, version: str) -> None:
        """Let `current` be a version, in one step."""
        fresh = self.folder / ".next"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(version)
        fresh.replace(self.folder / "current")

    def _versions(self) -> list[str]:
        """By name, which begins with the time."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if p.is_dir() and not p.is_symlink())

    def _prune(self, needed: set[str]) -> None:
        for version in self._versions()[: -self.settings.keep_versions]:
            if version not in needed:
                shutil.rmtree(self.folder / version, ignore_errors=True)


class _Chats:
    """A llama-server, asked as Ollama is."""

    def __init__(self, server: LlamaServer) -> None:
        self._server = server

    def chat(
        self, name: str, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]
    ) -> str:
        """The answer; `name` is of no account where one model is served."""
        return self._server.answer(messages, options)


def _counted(answers: Sequence[SmokeAnswer]) -> tuple[int, int]:
    return len(answers), sum(answer.passed for answer in answers)


def _questions(run: RunDir, s: Settings) -> list[Question]:
    from forge_cli.pipeline.deploying import smoke_questions

    return smoke_questions(run, s.smoke_questions, s.seed)
