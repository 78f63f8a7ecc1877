"""What a model says of where it comes from, in the metadata of its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from forge_cli import __version__
from forge_cli.core.run_dir import RunDir


def provenance(run: RunDir) -> dict[str, str]:
    """`forge.*` keys of a GGUF: which run, repository, commit, rows, base and adapters.

    Names and hashes alone: a file that is handed on must not tell of this machine's folders.
    """
    source = str(run.state.get("source", ""))
    found = {
        "forge.version": __version__,
        "forge.run": run.path.name,
        "forge.repository": "" if source.startswith("sha256:") else Path(source).name,
        "forge.commit": str(run.state["stages"].get("mine", {}).get("commit", "")),
        "forge.rows_sha256": _digest(run.path / "data" / "examples.jsonl"),
        "forge.adapters_sha256": _digest(run.path / "adapters" / "adapters.safetensors"),
    }
    if files := run.state.get("model_files"):
        told = json.dumps(files, sort_keys=True).encode()
        found["forge.base_sha256"] = hashlib.sha256(told).hexdigest()
    return {key: text for key, text in found.items() if text}


def _digest(file: Path) -> str:
    if not file.exists():
        return ""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
