"""What a job's process says: its log, how far it is, how it failed, and its run record."""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

_BLOCK = 64 * 1024  # characters of log that are written at once
_MOST = 4 << 20  # characters of log that wait to be written; beyond it the oldest go
_TASK = re.compile(r"^(?P<stage>.+?): (?P<done>\d+)(?:/(?P<total>\d+))?(?: (?P<detail>.*))?$")


class Output:
    """Lines of two pipes, taken by threads and read by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._text = ""
        self._progress: dict[str, Any] = {}
        self._stdout: list[str] = []
        self.error = self.hint = ""
        self.transient = False

    def take_stdout(self, line: str) -> None:
        """A line of data: records, of which the last `run` is the job's result."""
        with self._lock:
            self._stdout = [*self._stdout[-3:], line]

    def take_stderr(self, line: str) -> None:
        """A line for people, as JSON: a note, a warning, progress, or the error at the end."""
        told: Any = None
        with suppress(ValueError):
            told = json.loads(line)
        text = line
        with self._lock:
            if isinstance(told, dict):
                text = self._understand(told)
            self._text = (self._text + text)[-_MOST:]

    def _understand(self, told: dict[str, Any]) -> str:
        if "error" in told:
            self.error, self.hint = str(told["error"]), str(told.get("hint", ""))
            self.transient = bool(told.get("transient"))
            return f"error: {self.error}\nhint: {self.hint}\n"
        kind, text = next(iter(told.items()), ("", ""))
        if kind == "progress":
            if found := _TASK.match(str(text)):
                self._progress = {
                    "stage": found["stage"], "done": int(found["done"]),
                    "total": int(found["total"] or 0), "detail": found["detail"] or "",
                }  # fmt: skip
            return ""
        return f"{text}\n"

    def progress(self) -> dict[str, Any]:
        """What changed since the last call."""
        with self._lock:
            found, self._progress = self._progress, {}
        return found

    def new_text(self, *, all_of_it: bool = False) -> str:
        """Log that was not taken yet, in whole lines."""
        with self._lock:
            end = len(self._text) if all_of_it else self._text.rfind("\n", 0, _BLOCK) + 1
            found, self._text = self._text[:end], self._text[end:]
        return found

    def run_record(self) -> dict[str, Any]:
        """The last `run` record that was sent; {} if there was none."""
        for line in reversed(self._stdout):
            with suppress(ValueError):
                record = json.loads(line)
                if record.get("record") == "run":
                    return dict(record)
        return {}


class Tail:
    """The lines that are added to a file, whose last line may be written anew.

    All of them again, if it got shorter: a run that goes on cuts it back.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._at = path, 0
        self._last = b""  # the line at `_at`, told already

    def new_lines(self) -> list[str]:
        """Whole lines since the last call; [] where there is no file yet.

        A validation comes into the row of its step, which then is told again.
        """
        try:
            with open(self.path, "rb") as stream:
                if os.fstat(stream.fileno()).st_size < self._at:
                    self._at, self._last = 0, b""
                stream.seek(self._at)
                data = stream.read(1 << 20)
        except OSError:
            return []
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        if not lines:
            return []
        before, self._last = self._last, lines[-1]
        self._at += sum(map(len, lines[:-1]))
        return [line.decode(errors="replace") for line in lines if line != before]
