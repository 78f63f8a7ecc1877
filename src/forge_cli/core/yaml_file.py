"""A YAML file of settings, with the line of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from forge_cli.core.errors import UsageError


def read_yaml(file: Path) -> dict[str, tuple[Any, int]]:
    """The top-level keys of a YAML mapping with their values and lines; {} where no file is.

    Raises:
        UsageError: it cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}", "mend the file") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{file}:{line}: not YAML: {error.problem}", "mend that line") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{file}:{line}: not YAML: {error.reason}", "mend that line") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{file}:1: not a mapping of settings", "write lines such as: rank: 16")
    lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}
    return {str(k): (v, lines.get(str(k), 1)) for k, v in data.items()}
