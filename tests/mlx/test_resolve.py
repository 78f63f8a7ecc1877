"""From a name to a directory, or to one line that says what is wrong with the name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.models import resolve as module
from forge_cli.models.load import licence_of
from forge_cli.models.resolve import BUILT_IN, BuiltIn, resolve
from tiny_gguf import smollm2
from tiny_train import save_model


def test_a_built_in_model_is_its_imported_gguf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smollm2()
    folder = resolve("smollm2-135m")
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"]) == ("llama", 30)
    assert resolve(str(smollm2())) == folder, "the file itself is the same model"
    assert licence_of("smollm2-135m") == "Apache-2.0"
    assert licence_of("org/other") == ""


def test_a_directory_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path / "here")
    assert resolve(str(folder)) == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/here") == folder


@pytest.mark.parametrize(
    "name,message,hint",
    [
        ("smollm2-135", "smollm2-135: unknown model", "did you mean smollm2-135m?"),
        ("nothing-like-it", "unknown model", "built in: smollm2-135m"),
        ("./no/such/dir", "unknown model", "directory"),
        ("absent.gguf", "absent.gguf: no such file", ".gguf file"),
    ],
)
def test_unknown_names(name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(name)
    assert message in error.value.message
    assert hint in error.value.hint


def test_a_directory_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        resolve(str(tmp_path))


def test_a_built_in_model_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = BuiltIn("no_such_package", "x.gguf", "pip install it", "MIT", "me/absent")
    monkeypatch.setitem(module.BUILT_IN, "absent", absent)
    with pytest.raises(ForgeError, match="absent: its package is not installed") as error:
        resolve("absent")
    assert error.value.hint == "install it: pip install it"
    assert "absent" in BUILT_IN


def test_no_hub_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ForgeError, match="org/absent: cannot be fetched: ") as error:
        resolve("org/absent")
    assert "\n" not in error.value.message
    assert "local directory" in error.value.hint
