"""The shipped recipes: what they name exists, and fits the machine they are for."""

from __future__ import annotations

import pytest

from forge_cli.cli import _options
from forge_cli.core.config import Settings
from forge_cli.models.known_shapes import KNOWN
from forge_cli.pipeline.foresee import peak_bytes, recipe_peak
from forge_cli.recipes import list_recipes, load_recipe, recipe_for

MACS = [name for name in list_recipes() if name.startswith("mac-")]
# Billions of parameters as the models' pages give them (text part; a tied table counts once).
BILLIONS = {
    "smollm2-135m": 0.135, "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1.71,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": 0.49, "Qwen/Qwen2.5-Coder-1.5B-Instruct": 1.54,
    "Qwen/Qwen2.5-Coder-3B-Instruct": 3.09, "Qwen/Qwen2.5-Coder-7B-Instruct": 7.61,
    "Qwen/Qwen2.5-Coder-14B-Instruct": 14.7, "Qwen/Qwen2.5-Coder-32B-Instruct": 32.5,
    "Qwen/Qwen3-1.7B": 1.7, "Qwen/Qwen3-4B": 4.0, "Qwen/Qwen3-8B": 8.2, "Qwen/Qwen3-14B": 14.8,
    "Qwen/Qwen3-32B": 32.8, "meta-llama/Llama-3.2-3B-Instruct": 3.21,
    "meta-llama/Llama-3.1-8B-Instruct": 8.03, "meta-llama/Llama-3.3-70B-Instruct": 70.6,
    "google/gemma-3-1b-it": 1.0, "mistralai/Mistral-7B-Instruct-v0.3": 7.25,
    "mistralai/Mistral-Small-24B-Instruct-2501": 23.6,
}  # fmt: skip


def test_known_shapes_are_the_models() -> None:
    assert set(KNOWN) == set(BILLIONS)
    for name, shapes in KNOWN.items():
        assert shapes.parameters / 1e9 == pytest.approx(BILLIONS[name], rel=0.015), name


@pytest.mark.parametrize("name", MACS)
def test_a_recipe_leaves_a_quarter_of_its_machine(name: str) -> None:
    peak = recipe_peak(name, load_recipe(name))
    assert peak and peak <= 0.75 * int(name.split("-")[1]) * 2**30
    with open(list_recipes()[name], encoding="utf-8") as stream:
        assert f"with {name.split('-')[1]} GB" in stream.readline()


def test_there_are_three_for_each_size() -> None:
    for size in (8, 16, 32, 64, 128):
        assert {f"mac-{size}-{kind}" for kind in ("small", "medium", "large")} <= set(MACS)
    assert MACS.index("mac-8-large") < MACS.index("mac-16-small") < MACS.index("mac-128-small")


@pytest.mark.parametrize(
    "gigabytes,name", [(8, 8), (16, 16), (18, 16), (24, 16), (36, 32), (96, 64), (192, 128), (4, 8)]
)
def test_memory_chooses(gigabytes: int, name: int) -> None:
    assert recipe_for(gigabytes * 2**30) == f"mac-{name}-medium"


def test_a_mac_gets_its_recipe_unless_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_options, "mac_memory", lambda: 16 * 2**30)
    found = _options.settings({})
    assert found.settings.model == "Qwen/Qwen3-4B"
    assert found.chosen.startswith("recipe mac-16-medium, for the 16 GB of this Mac")
    assert found.origins["model"] == "recipe mac-16-medium"
    assert _options.settings({"rank": 4}).settings.rank == 4
    for flags, recipe in (({"model": "smollm2-135m"}, None), ({}, "demo")):
        told = _options.settings(flags, recipe)
        assert told.settings.model == "smollm2-135m" and not told.chosen
    monkeypatch.setattr(_options, "mac_memory", lambda: 0)
    assert _options.settings({}).settings.model == "smollm2-135m"


def test_a_model_that_is_not_known_is_not_foreseen() -> None:
    assert peak_bytes(Settings(model="org/other")) is None
    assert peak_bytes(Settings(), gpu=True) != peak_bytes(Settings(), gpu=False)
