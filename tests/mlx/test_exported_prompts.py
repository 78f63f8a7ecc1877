"""The gate of prompts: a file's own template in llama.cpp's engine, against training's text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from forge_cli.core.errors import PromptDiffers
from forge_cli.core.events import Silent
from forge_cli.export import gguf_files, prompts
from forge_cli.models.load import load_dense
from tiny_gguf import random_weights, tiny_config
from tiny_sentencepiece import save_sentencepiece
from tiny_train import TEMPLATE, example, save_model

HELD_OUT = [example(3, question, "test") for question in range(2)]
LEADING = "{{ bos_token }}" + TEMPLATE
DATED = "{{ date_string or '26 Jul 2024' }}\n" + TEMPLATE
# Without tools the variable is none in transformers, and undefined in llama.cpp.
TOOLS = TEMPLATE + "{% if tools is not none %}<tools>{% endif %}"
UNKNOWN = TEMPLATE + "{{ messages | batch(2) | list | length }}"


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)

    warn = note


def export(folder: Path, template: str, settings: dict[str, Any], told: Told) -> dict[str, Any]:
    """The facts of an F16 file of the model in `folder`, with another template."""
    (folder / "chat_template.jinja").write_text(template)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    loaded = load_dense(str(folder))
    _, facts = gguf_files.write_files(
        loaded, folder, "tiny", quants=["f16"], probes=prompts.make_probes(loaded, HELD_OUT),
        reporter=told,
    )  # fmt: skip
    return dict(facts["parity.f16"])


BOS = {"bos_token": "<|endoftext|>", "add_bos_token": True}


@pytest.mark.parametrize(
    ("template", "settings", "dated", "said"),
    [
        (TEMPLATE, {}, False, "prompt equal byte for byte"),
        # llama.cpp leaves out of the text what its tokenizer puts before it.
        (LEADING, BOS, False, "prompt equal byte for byte"),
        (TEMPLATE, BOS, False, "prompt equal byte for byte"),
        (LEADING + DATED, BOS, True, "prompt equal but for the date"),
    ],
    ids=["plain", "BOS of both", "BOS of the tokenizer alone", "dated, with BOS"],
)
def test_prompts_of_the_file_are_those_of_training(
    tmp_path: Path, template: str, settings: dict[str, Any], dated: bool, said: str
) -> None:
    told = Told()
    facts = export(save_model(tmp_path), template, settings, told)
    assert facts["prompts_equal"] and facts["tokens_equal"]
    assert facts["prompts_dated"] is dated
    assert dated == any("prints a date" in line for line in told.lines)
    assert any(said in line and "perplexity" in line for line in told.lines)
    assert facts["perplexity"] == pytest.approx(facts["trained_perplexity"], rel=1e-3)
    assert facts["perplexity_ratio"] == facts["perplexity"] / facts["trained_perplexity"]


@pytest.mark.parametrize("prefix", [True, False])
def test_prompts_of_sentencepiece(tmp_path: Path, prefix: bool) -> None:
    """With and without a space before each text: BOS is llama.cpp's to put, then the text."""
    vocab = save_sentencepiece(tmp_path, prefix=prefix)
    small = {"hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2}
    config = tiny_config("llama", vocab, **small)
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = {name: value.astype(np.float16) for name, value in random_weights(config).items()}
    save_file(weights, str(tmp_path / "model.safetensors"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}
    facts = export(tmp_path, LEADING, settings, Told())
    assert facts["prompts_equal"] and facts["tokens_equal"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (TOOLS, r"prompt 1: llama.cpp renders it otherwise from character \d+ on: '<tools>'"),
        (UNKNOWN, "llama-server ends: .*batch|refuses a chat: .*batch"),
    ],
    ids=["another prompt", "a template that it cannot run"],
)
def test_a_template_that_renders_otherwise_is_rejected(
    tmp_path: Path, template: str, reason: str
) -> None:
    with pytest.raises(PromptDiffers, match=reason) as caught:
        export(save_model(tmp_path), template, {}, Told())
    assert caught.value.exit_code == 3 and "--no-parity" in caught.value.hint
    rejected = tmp_path / "tiny-f16.gguf.rejected"
    assert caught.value.message.startswith(f"{rejected}: not the prompts of training: ")
    assert rejected.is_file() and not (tmp_path / "tiny-f16.gguf").exists()


def test_a_wheel_without_a_server_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "program", lambda: None)
    told = Told()
    facts = export(save_model(tmp_path), TEMPLATE, {}, told)
    assert facts["prompts_equal"] is None
    assert any("llama-server is not in this wheel" in line for line in told.lines)
