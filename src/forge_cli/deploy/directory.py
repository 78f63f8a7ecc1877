"""Other servers than Ollama: a folder with the model, a script that serves it, and what to send.

They read the chat template, the end tokens and the context out of the model; none of them keeps a
system prompt, so it lies beside it in `system.txt`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
from pathlib import Path
from typing import Literal

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.deploy.address import check_name
from forge_cli.deploy.gguf_header import read_header
from forge_cli.deploy.modelfile import DEFAULT_NUM_CTX

Kind = Literal["llama-server", "lm-studio", "mlx"]

_SERVE = {
    "llama-server": 'exec llama-server -m "$here"/{file} --alias {name} -c {context} '
    '--temp 0 --jinja "$@"',
    "mlx": 'exec mlx_lm.server --model {file} --temp 0 "$@"',
}
_PORTS = {"llama-server": 8080, "mlx": 8080, "lm-studio": 1234}


def write_served(
    kind: Kind,
    model: Path,
    *,
    name: str,
    folder: Path,
    system: str,
    context: int | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Write the folder `folder/name`, which is made anew, and return it.

    llama-server: the GGUF and `serve`. lm-studio: the GGUF where `folder` is LM Studio's
    `models/PUBLISHER`. mlx: `serve` for `mlx_lm.server`, on the directory where it lies.

    Args:
        model: a .gguf file; for mlx the exported directory. It is linked where that is
            possible, else copied.
        context: tokens of prompt and answer together (None: 8192, or the model's if less).

    Raises:
        UsageError: a bad name, or no such model. ForgeError: the folder is not ours, or cannot
            be written.
    """
    check_name(name)
    if not model.exists():
        raise UsageError(f"{model}: no such model", "make one with: forge export RUN")
    target = folder / name.replace(":", "-").replace("/", "-")
    if target.exists() and not (target / "system.txt").exists():
        raise ForgeError(f"{target}: exists, and was not made by Forge", "give another --dir")
    try:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        file = str(model.resolve())
        if kind != "mlx":
            file = f"{target.name}.gguf"
            _link(model, target / file)
        (target / "system.txt").write_text(system + "\n", encoding="utf-8")
        if kind in _SERVE:
            line = _SERVE[kind].format(
                file=shlex.quote(file), name=shlex.quote(name), context=context or _context(model)
            )
            _script(target / "serve", line)
    except OSError as error:
        raise ForgeError(f"{target}: {error.strerror}", "give another --dir") from None
    reporter.note(f"wrote {target}; send the text of system.txt as the system message")
    return target


def _context(model: Path) -> int:
    found = None if model.is_dir() else read_header(model).context_length
    return min(found or DEFAULT_NUM_CTX, DEFAULT_NUM_CTX)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        with atomic_file(target) as stream, open(source, "rb") as original:
            shutil.copyfileobj(original, stream)


def _script(path: Path, line: str) -> None:
    path.write_text(f'#!/bin/sh\nhere=$(cd "$(dirname "$0")" && pwd)\n{line}\n', encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def next_command(kind: Kind, folder: Path) -> str:
    """What a user runs next."""
    if kind == "lm-studio":
        return f"open LM Studio and load {folder.name}"
    return f"{folder / 'serve'} --port {_PORTS[kind]}"
