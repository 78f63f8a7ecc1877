"""Forge's adapters in real PEFT, and PEFT's in Forge: the largest difference of their logits.

    make bench                                  # or, where peft and torch are installed:
    python benchmarks/peft_adapters.py

A tiny random Llama in float32. Out: PiSSA, DoRA and rsLoRA over a base that is not quantised,
written by `write_peft`, loaded by `PeftModel.from_pretrained`. In: LoRA, rsLoRA, DoRA and ranks by
pattern with random values, saved by PEFT, read by `read_peft`. Relative to the largest logit.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from forge_cli.models.adapters import (
    AdapterConfig,
    adapter_arrays,
    attach,
    get_module,
    load_tuned,
    read_adapters,
    save_adapters,
)
from forge_cli.models.backend import mx
from forge_cli.models.load import load_dense
from forge_cli.models.peft import read_peft, write_peft
from forge_cli.train.initial import start_adapters

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from tiny_train import save_model

IDS = list(range(4, 60))
OUT: dict[str, dict[str, Any]] = {
    "pissa": {"init": "pissa"},
    "pissa, rslora": {"init": "pissa", "rslora": True},
    "pissa, dora": {"init": "pissa", "dora": True},
    "lora": {"init": "lora"},
}
IN: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {"rank_pattern": {"q_proj": 6}, "alpha_pattern": {"layers.1.*down_proj": 3}},
}


def torch_logits(model: Any) -> np.ndarray:
    """[T, vocab]."""
    import torch

    with torch.no_grad():
        return model(torch.tensor([IDS])).logits[0].numpy()


def mlx_logits(model: Any) -> np.ndarray:
    """[T, vocab]."""
    return np.array(model(mx.array([IDS]))[0])


def apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def torch_base(path: Path) -> Any:
    """The model in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def going_out(model: Path, work: Path, settings: dict[str, Any]) -> float:
    """Forge's adapters, moved away from their start, in PEFT."""
    from peft import PeftModel

    loaded = load_dense(str(model))
    config = replace(AdapterConfig(str(model), "lora", 4, 12.0, 16, 64, []), **settings)
    config, initial = start_adapters(
        loaded.model, config, targets=["q_proj", "down_proj"], layers="last 1", seed=0,
        rank_pattern={"q_proj": 6},
    )  # fmt: skip
    for name in config.modules:
        layer = get_module(loaded.model, name)
        layer.A, layer.B = layer.A * 1.3, layer.B + 0.02
        if config.dora:
            layer.m = layer.m * 1.1
    save_adapters(work / "forge", config, adapter_arrays(loaded.model), initial)
    write_peft(work / "peft", read_adapters(work / "forge"))
    theirs = PeftModel.from_pretrained(torch_base(model), work / "peft")
    return apart(torch_logits(theirs), mlx_logits(load_tuned(work / "forge").model))


def coming_in(model: Path, work: Path, settings: dict[str, Any]) -> float:
    """PEFT's adapters with random values, in Forge."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], **settings)
    theirs = get_peft_model(torch_base(model), config)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        if "magnitude" in name:
            parameter.data *= 1.1
    theirs.save_pretrained(work / "saved")
    found, loaded = read_peft(work / "saved"), load_dense(str(model))
    attach(loaded.model, found.config, found.arrays, {})
    return apart(mlx_logits(loaded.model), torch_logits(theirs))


def main() -> None:
    """One line a case; fails where one is further apart than float32 rounding explains."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder) / "model")
        for way, cases, compare in (("to", OUT, going_out), ("from", IN, coming_in)):
            for name, settings in cases.items():
                work = Path(folder) / way / name
                work.mkdir(parents=True)
                found = compare(model, work, settings)
                worst = max(worst, found)
                print(f"{way} PEFT, {name}: {found:.1e}")
    if worst > 1e-4:
        sys.exit("not the same function")


if __name__ == "__main__":
    main()
