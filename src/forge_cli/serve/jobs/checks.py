"""Whether a job may be taken at all: asked before it is queued, and so answered at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.serve.jobs.command import check_options
from forge_cli.serve.jobs.job import Spec
from forge_cli.serve.jobs.sources import Allowed, check_source, is_within

# Settings that may name a file or a folder of this machine.
_PATHS = ("model", "suites", "sides", "teacher", "judge", "adapters")
_LOCAL = re.compile(r"^(/|~|\.\.?(/|$))|(^|/)\.\.(/|$)|\.(gguf|ya?ml|jsonl?)$")


class NotAllowed(UsageError):
    """What is asked for is right, and this server may not do it."""


def check_spec(spec: Spec, allowed: Allowed) -> None:
    """Say no to what this server cannot or may not run.

    Raises:
        NotAllowed: the source, or a file among the options, is not open to jobs.
        UsageError: an option is unknown, forbidden or wrong.
    """
    try:
        check_source(spec.source, allowed)
    except UsageError as error:
        raise NotAllowed(error.message, error.hint) from None
    try:
        # What Python writes and reads, but neither JSON nor a queue must.
        json.dumps(spec.model_dump(), allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        raise UsageError("options: not plain JSON", "no NaN and no half characters") from None
    check_options(spec.options, execute=allowed.execute)
    for name in _PATHS:
        for text in _texts(spec.options.get(name)):
            path = text.split(":", 1)[1] if re.match(r"(mlx|checkpoint):", text) else text
            path = path.removesuffix("+examples")
            local = name == "adapters" or _LOCAL.search(path)
            if local and not is_within(Path(path), allowed):
                raise NotAllowed(
                    f"options.{name}: {text}: not in a folder that this server may read",
                    "start it with --allow FOLDER",
                )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (one for one in value if isinstance(one, str))
