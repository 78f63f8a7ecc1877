"""Bodies of held-out definitions, judged by the tests that the repository has for them.

A row is a definition to complete, as in `code_rows`. The answer takes the place of the body in
its file, and the tests that reach the definition run over a copy of the repository, contained. A
row counts only if they pass with the body that stands there and fail without one: else a pass
would say nothing.

A pass is pytest's own report of as many passed tests as the repository's body has; code that
leaves early leaves no report. Code that sets out to write one is not held off: it runs in the
same process as the tests. Of a command that is not pytest only the exit code is known, so that
code which exits with 0 would pass.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Chunk, Example
from forge_cli.core.test_paths import is_test_path
from forge_cli.evaluate.code_rows import definitions
from forge_cli.evaluate.metrics.code import trim
from forge_cli.evaluate.repo_tests.reach import Reach, files_of, node_ids
from forge_cli.evaluate.repo_tests.tree import Tree, read_tree
from forge_cli.evaluate.repo_tests.trials import Trial, Trials
from forge_cli.evaluate.sample import in_order
from forge_cli.evaluate.sandbox import why_not

TEST_COMMAND = "python -m pytest -x -q -p no:cacheprovider {tests}"
# Where nothing passes, as in a repository whose packages are missing, looking at all of it would
# take hours.
_LOOKED_PER_ROW, _LEAST_LOOKED = 8, 24
_PASSED = Trial(0, None, "")
_NO_TESTS = "no test reaches it"
_CHANGED = "changed since it was mined"
_FAILING = "its tests do not pass as it stands"
_BLIND = "its tests do not notice that its body is gone"


@dataclass(frozen=True)
class _Place:
    """Where a body stands, and the tests that reach it.

    Attributes:
        before, after: the file's text around the body.
        tests: what the command is given, by what is tried first.
        wanted: how the command ends with the body that stands there.
    """

    path: str
    language: str
    before: str
    body: str
    after: str
    tests: tuple[list[str], ...]
    wanted: Trial = _PASSED


class RepoTests:
    """The rows of condition "repo_tests", and how answers to them are scored."""

    def __init__(self, tree: Tree, trials: Trials, reporter: Reporter, *, alone: bool) -> None:
        self._tree, self._trials, self._reporter = tree, trials, reporter
        self._alone = alone
        self._places: dict[str, _Place] = {}

    @classmethod
    def over(
        cls,
        root: Path | None,
        command: str | Sequence[str],
        *,
        cache: Path,
        execute: bool,
        alone: bool,
        reporter: Reporter,
    ) -> RepoTests:
        """Over the repository at `root`, before a model is asked; nothing is run yet.

        Args:
            command: runs in a copy of `root`, as a shell would split it; {tests} stands for the
                tests that are wanted: pytest's node ids, or files for another command.
            cache: folder that keeps how each run ended.
            alone: nothing else is asked, so that it is an error if no row is left.

        Raises:
            UsageError: code may not be executed, or cannot be contained; there is no such folder
                or no command. ForgeError: the repository is too large.
        """
        if not execute:
            raise UsageError(
                "repo_tests runs what the models write", "allow it with --execute: it is contained"
            )
        if root is None:
            raise UsageError(
                "repo_tests: trained on finished rows: the repository is not known",
                "judge a run over the repository: forge train REPO",
            )
        if not root.is_dir():
            raise UsageError(
                f"repo_tests: {root}: the repository is gone", "put it back, or leave the suite out"
            )
        if why := why_not():
            raise UsageError(f"repo_tests: code cannot be contained here: {why}", "leave it out")
        tree = read_tree(root)
        return cls(
            tree, Trials(root, tree, command, cache / "repo_tests.jsonl"), reporter, alone=alone
        )

    def make_rows(
        self, chunks: Sequence[Chunk], test: Sequence[Example], limit: int, seed: int
    ) -> list[Example]:
        """Up to `limit` calibrated rows of the test rows' files, drawn by seed, from as many
        files as there are.

        Raises:
            ForgeError: none is left, and nothing else is asked; it says why.
        """
        found, dropped = self._candidates(chunks, test)
        order = in_order([row for row, _ in found], seed)
        order = order[: max(_LEAST_LOOKED, _LOOKED_PER_ROW * limit)] if limit else []
        places = {row.id: place for row, place in found}
        kept: list[Example] = []
        failed = ""
        at_once = os.cpu_count() or 1
        with (
            ThreadPoolExecutor(at_once) as pool,
            self._reporter.task("repo_tests: calibration", min(limit, len(order))) as task,
        ):
            for start in range(0, len(order), at_once):
                part = order[start : start + at_once]
                ended = pool.map(self._calibrate, [places[row.id] for row in part])
                for row, (why, place, said) in zip(part, ended, strict=True):
                    if why:
                        dropped[why] += 1
                        failed = said or failed
                    elif len(kept) < limit:
                        self._places[row.id] = place
                        kept.append(row)
                        task.advance(1)
                if len(kept) == limit:
                    break
        self._report(kept, dropped, failed, limit)
        return kept

    def score(self, example: Example, text: str) -> dict[str, float]:
        """tests_pass: 1 where the tests end as with the repository's own body.

        Raises:
            KeyError: the row is not one of `make_rows`.
        """
        place = self._places[example.id]
        return {"tests_pass": float(self._passes(place, trim(text, place.body)))}

    def _candidates(
        self, chunks: Sequence[Chunk], test: Sequence[Example]
    ) -> tuple[list[tuple[Example, _Place]], Counter[str]]:
        reach, dropped = Reach(chunks), Counter[str]()
        found = []
        for chunk, head, row in definitions(chunks, test, "repo_test"):
            if is_test_path(chunk.path):
                continue
            if not (tests := reach.tests_of(chunk)):
                dropped[_NO_TESTS] += 1
            elif (place := self._place(chunk, head, row.answer.final, tests)) is None:
                dropped[_CHANGED] += 1
            else:
                found.append((row, place))
        return found, dropped

    def _place(self, chunk: Chunk, head: str, body: str, tests: Sequence[Chunk]) -> _Place | None:
        """Where the body stands in the file as it is now; None where the file has changed."""
        path = self._tree.inside(chunk.path)
        data = self._tree.files.get(path, "").encode()
        if data[chunk.start_byte : chunk.end_byte] != chunk.text.encode():
            return None
        start = chunk.start_byte + len(head.encode())
        before, after = data[:start], data[start + len(body.encode()) :]
        inside = self._tree.inside
        told: tuple[list[str], ...] = (files_of(tests, inside),)
        if self._trials.is_pytest:
            # pytest runs nothing where one id is none of its own; a file it always knows.
            told = (node_ids(tests, inside), *told)
        return _Place(path, chunk.language, before.decode(), body, after.decode(), told)

    def _calibrate(self, place: _Place) -> tuple[str, _Place, str]:
        """Why a place is of no use ("": it is), the place with what it is to be held to, and what
        its tests said where they failed."""
        said = ""
        for tests in dict.fromkeys(map(tuple, place.tests)):
            wanted = self._trials.run(tests)
            if wanted.code == 0 and (wanted.passed or not self._trials.is_pytest):
                place = replace(place, tests=(list(tests),), wanted=wanted)
                return _BLIND if self._passes(place, _without(place)) else "", place, ""
            said = wanted.said
        return _FAILING, place, said

    def _passes(self, place: _Place, body: str) -> bool:
        text = place.before + body + place.after
        found = self._trials.run(place.tests[0], place.path, text)
        return found.code == 0 and found.passed == place.wanted.passed

    def _report(
        self, kept: Sequence[Example], dropped: Counter[str], failed: str, limit: int
    ) -> None:
        why = "; ".join(f"{count}: {reason}" for reason, count in dropped.most_common())
        told = f"{len(kept) + dropped.total()} definitions of held-out files"
        if kept or not limit:
            self._reporter.note(f"repo_tests: {len(kept)} rows; looked at {told} ({why or 'all'})")
            return
        lost = f"repo_tests: none of {told} can be judged by its tests ({why or 'too short'})" + (
            f"; the last run said: {_telling(failed)}" if failed else ""
        )
        hint = "the tests need their packages beside Forge, or a test_command with its own Python"
        if self._alone:
            raise ForgeError(lost, hint)
        self._reporter.note(f"{lost}: {hint}")


def _telling(output: str) -> str:
    """The line of an output that says most: its last exception, else its end."""
    lines = [line for text in output.splitlines() if (line := text.strip(" =-_"))]
    raised = [
        line.removeprefix("E ").strip() for line in lines if re.search(r"\w(Error|ion): ", line)
    ]
    return (raised or lines or [""])[-1]


def _without(place: _Place) -> str:
    """What stands in for a body that is gone."""
    lines = place.body.splitlines()
    if place.language == "python":
        first = lines[0]
        return first[: len(first) - len(first.lstrip())] + "raise NotImplementedError"
    # In other languages nothing is in it; what closes it stays.
    last = lines[-1].strip()
    return lines[-1] if last == "end" or set(last) <= set("})];, ") else ""
