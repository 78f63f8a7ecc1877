"""Runs of a repository's tests over one changed file, contained, each kept by a hash."""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path

from forge_cli.core.errors import UsageError
from forge_cli.evaluate.repo_tests.tree import Tree
from forge_cli.evaluate.sandbox import Limits, run_contained

_DRIVER = Path(__file__).with_name("driver.py").read_text(encoding="utf-8")
_SECONDS = 60.0
# Room for what tests write, besides the copy.
_WRITTEN = 128 << 20
_MEMORY, _PROCESSES = 4 << 30, 64


@dataclass(frozen=True)
class Trial:
    """How a test command ended.

    Attributes:
        code: its exit code; None where it was stopped.
        passed: tests that pytest's report says passed; None without a report.
        said: the end of its output, or why it was stopped.
    """

    code: int | None
    passed: int | None
    said: str


class Trials:
    """Runs of one test command over copies of one tree."""

    def __init__(self, root: Path, tree: Tree, command: str | Sequence[str], file: Path) -> None:
        """`file` keeps what was run, a line each.

        Raises:
            UsageError: the command is empty, or names a program by a path that is not there.
        """
        self._tree = tree
        self._command = shlex.split(command) if isinstance(command, str) else list(command)
        if not self._command:
            raise UsageError("test_command is empty", "give one, such as: python -m pytest {tests}")
        self._shown: list[Path] = []
        if "/" in self._command[0]:
            # An environment's own Python, such as .venv/bin/python, with what it links to.
            program = (root / self._command[0]).absolute()
            if not program.is_file():
                raise UsageError(f"test_command: {program}: no such program", "give another one")
            self._command[0] = str(program)
            self._shown = [path.parent.parent for path in (program, program.resolve())]
        self._shown = [path for path in self._shown if not _is_system(path)]
        self._file = file
        self._lock = threading.Lock()
        self._known = dict(_read(file))
        self._about = [tree.digest, self._command, sys.version, _packages(), _DRIVER]

    @property
    def is_pytest(self) -> bool:
        """Whether the command writes a report that says what passed."""
        return any(Path(part).name in ("pytest", "py.test") for part in self._command)

    def run(self, tests: Sequence[str], path: str = "", text: str = "") -> Trial:
        """The command over a copy of the tree in which the file at `path` has this text.

        Raises:
            ForgeError: the machine cannot contain it.
        """
        told = json.dumps([*self._about, list(tests), path, text])
        key = hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self._known:
            found = self._run(list(tests), {path: text} if path else {})
            line = json.dumps([key, asdict(found)])
            with self._lock:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with open(self._file, "a", encoding="utf-8") as stream:
                    stream.write(line + "\n")
                self._known[key] = found
        return self._known[key]

    def _run(self, tests: list[str], changed: dict[str, str]) -> Trial:
        word = secrets.token_hex(8)
        order = {"command": self._with(tests), "junit": self.is_pytest, "word": word}
        files = {**self._tree.files, **changed}
        limits = Limits(
            seconds=_SECONDS, cpu_seconds=_SECONDS, memory_bytes=_MEMORY, processes=_PROCESSES,
            disk_bytes=self._tree.disk_bytes + _WRITTEN,
        )  # fmt: skip
        done = run_contained(
            [sys.executable, "-I", "-S", "-c", _DRIVER], files=files,
            read_only=self._shown, limits=limits, stdin=json.dumps(order),
        )  # fmt: skip
        first, _, told = (done.stdout.splitlines() or [""])[-1].partition(" ")
        if done.exit_code != 0 or first != word:
            return Trial(None, None, f"stopped: {done.why or done.stderr[-500:]}")
        return Trial(**json.loads(told))

    def _with(self, tests: list[str]) -> list[str]:
        """The command with the tests as arguments of their own, or quoted inside one."""
        parts: list[str] = []
        for part in self._command:
            parts += tests if part == "{tests}" else [part.replace("{tests}", shlex.join(tests))]
        return parts


def _is_system(path: Path) -> bool:
    """Whether the sandbox shows it anyhow: the system's programs, and this Python."""
    own = (Path("/usr"), Path("/bin"), Path(sys.prefix), Path(sys.base_prefix))
    return path == Path("/") or any(path.is_relative_to(one) for one in own)


def _packages() -> list[str]:
    """What is installed: a missing package that was added since may let the tests pass."""
    return sorted({f"{one.name}=={one.version}" for one in distributions()})


def _read(file: Path) -> Iterator[tuple[str, Trial]]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            key, found = json.loads(line)
            yield str(key), Trial(**found)
        except (ValueError, TypeError):
            continue  # torn by a crash: it is run again
