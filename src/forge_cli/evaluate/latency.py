"""How long a user waits, and how much memory it takes: each side in a process of its own.

A process of its own, so that no side finds the memory, the caches or the threads of another. The
times are this machine's, by the clock: other work on it counts too.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.core.records import Message
from forge_cli.evaluate.sides import Side, SideSpec


@dataclass(frozen=True)
class Timing:
    """One answer by the clock.

    Attributes:
        first: seconds from the question to its first token.
        each: mean seconds of a token after it; None where it is the only one.
        tokens: of the answer, the end among them (of a server: pieces).
    """

    first: float
    each: float | None
    tokens: int


@dataclass(frozen=True)
class Speed:
    """A side by the clock.

    Attributes:
        timings: of each prompt, in their order; one before them, which warms it up, is left out.
        peak_bytes: most memory of the process that answers; None for a server.
    """

    timings: list[Timing]
    peak_bytes: int | None

    def as_summary(self) -> dict[str, Any]:
        """Medians over prompts, in seconds and tokens a second, for JSON."""
        each = [timing.each for timing in self.timings if timing.each is not None]
        return {
            "n": len(self.timings),
            "first_token_seconds": median(timing.first for timing in self.timings),
            "tokens_per_second": 1 / median(each) if each else None,
            "peak_bytes": self.peak_bytes,
        }


def measure(
    spec: SideSpec,
    side: Side,
    adapters: Path,
    prompts: Sequence[list[Message]],
    folder: Path,
    reporter: Reporter,
    *,
    url: str | None,
    max_tokens: int,
) -> Speed:
    """Put each prompt to a side, one after another; what was measured here is not measured again.

    Args:
        side: opened, for the parameters that its answers depend on; it is not asked.
        folder: keeps the times, by side, prompts and machine.
        url: of the server, for ollama: and openai:.

    Raises:
        ForgeError: the side cannot be loaded or reached, or its process ends early.
    """
    chats = [[[message.role, message.content] for message in prompt] for prompt in prompts]
    told = [side.name, dict(side.parameters), chats, platform.node(), os.cpu_count()]
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    file = folder / "latency" / f"{key}.json"
    if file.is_file():
        return _read(json.loads(file.read_text(encoding="utf-8")))
    order = {
        "side": spec.model, "adapters": str(adapters), "url": url, "max_tokens": max_tokens,
        "chats": chats,
    }  # fmt: skip
    with reporter.task(f"{spec.text}: latency", len(chats)) as task:
        found = _run(spec, order, task.advance)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(file) as stream:
        stream.write(json.dumps(asdict(found)).encode())
    return found


def _run(spec: SideSpec, order: Mapping[str, Any], advance: Callable[[int], None]) -> Speed:
    command = [sys.executable, "-m", "forge_cli.evaluate.latency_process"]
    timings: list[Timing] = []
    said: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as words,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, text=True
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):  # gone already: it says why
            process.stdin.write(json.dumps(order))
            process.stdin.close()
        for line in process.stdout:
            said = json.loads(line)
            if "first" in said:
                timings.append(Timing(**said))
                advance(1)
        code = process.wait()
        words.seek(0)
        lost = words.read().strip().splitlines()[-1:] or [f"exit {code}"]
    if "error" in said:
        raise ForgeError(f"{spec.text}: {said['error']}", said["hint"])
    if "peak_bytes" not in said:
        raise ForgeError(f"{spec.text}: its process ended early: {lost[0]}", "run it again")
    return Speed(timings, said["peak_bytes"])


def _read(stored: Mapping[str, Any]) -> Speed:
    return Speed([Timing(**timing) for timing in stored["timings"]], stored["peak_bytes"])
