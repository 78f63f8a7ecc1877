"""What a command says on stderr with --json: notes, progress, and how it failed."""

from __future__ import annotations

import json
import re
import threading
from collections import deque
from contextlib import suppress
from typing import Any

LINES = 400  # of log that are kept
_TASK = re.compile(r"^(?P<stage>.+?): (?P<done>\d+)(?:/(?P<total>\d+))?(?: (?P<detail>.*))?$")


class Told:
    """Lines of stderr, taken by one thread and read by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log: deque[str] = deque(maxlen=LINES)
        self._notes: deque[str] = deque(maxlen=LINES)
        self._progress: dict[str, Any] | None = None
        self.group: int | None = None  # process group of the command
        self.error = self.hint = ""

    def take(self, line: str) -> None:
        """One line, without its end."""
        told: Any = None
        with suppress(ValueError):
            told = json.loads(line)
        with self._lock:
            if not isinstance(told, dict):
                self._log.append(line)
            elif "process_group" in told:
                self.group = int(told["process_group"])
            elif "error" in told:
                self.error, self.hint = str(told["error"]), str(told.get("hint", ""))
                self._log.append(f"error: {self.error}")
            else:
                self._understand(*next(iter(told.items()), ("", "")))

    def _understand(self, kind: str, text: Any) -> None:
        if kind != "progress":
            self._log.append(str(text))
            self._notes.append(str(text))
        elif found := _TASK.match(str(text)):
            self._progress = {
                "stage": found["stage"],
                "done": int(found["done"]),
                "total": int(found["total"]) if found["total"] else None,
                "detail": found["detail"] or "",
            }

    def notes(self) -> list[str]:
        """What was said for people."""
        with self._lock:
            return list(self._notes)

    def log(self, lines: int) -> list[str]:
        """The last lines."""
        with self._lock:
            return list(self._log)[-lines:] if lines else []

    def progress(self) -> dict[str, Any] | None:
        """How far the command is: stage, done, total, detail; None where nothing was said yet."""
        with self._lock:
            return dict(self._progress) if self._progress else None
