"""Write the tuned model as GGUF and prove that it answers as the trained one: `export.run(...)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError, GateFailed
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Example

# Enough positions for a top-1 share to be worth printing.
_PARITY_POSITIONS = 600


def run(
    *,
    adapters: Path,
    out: Path,
    name: str,
    quants: Sequence[str] = ("q4_k_m",),
    held_out: Sequence[Example] = (),
    parity: bool = True,
    reporter: Reporter = SILENT,
) -> tuple[list[Path], dict[str, Any]]:
    """Merge in float32, write one GGUF per type, and compare each with the model in llama.cpp.

    Args:
        held_out: rows whose prompts both models read.
        parity: compare; without it nothing shows that the file is right.

    Returns:
        The files, and `parity.<type>` → positions, tokens_equal, top1_agreement, mean_kl,
        max_kl.

    Raises:
        GateFailed: a file is not the trained model; it is kept as `….rejected`.
        ForgeError: an architecture or tokenizer that cannot be written, or llama.cpp is
            missing while parity is asked for.
    """
    from forge_cli.export import llamacpp
    from forge_cli.export.gguf import write_gguf
    from forge_cli.export.merge import merged_weights
    from forge_cli.models.adapters import load_tuned
    from forge_cli.models.load import licence_of

    if parity and not llamacpp.available():
        raise ForgeError(
            "llama.cpp is not installed, so the export cannot be checked",
            "pip install 'forge-cli[parity]', or say --no-parity",
        )
    loaded = load_tuned(adapters, reporter=reporter)
    weights = merged_weights(loaded.model)
    metadata = {"general.finetune": "forge", "general.base_model.0.name": loaded.name}
    if licence := licence_of(loaded.name):
        metadata["general.license"] = licence
    probes = _probes(loaded, held_out) if parity else []
    files, facts = [], {}
    for quant in quants:
        file = out / f"{name}-{quant}.gguf"
        write_gguf(
            file,
            config=loaded.config,
            tokenizer_dir=loaded.path,
            weights=weights,
            quant=quant,
            name=name,
            metadata=metadata,
            reporter=reporter,
        )
        if parity:
            facts[f"parity.{quant}"] = _check(file, quant, probes, reporter)
        files.append(file)
        reporter.note(f"wrote {file} ({file.stat().st_size / 1e6:.0f} MB)")
    return files, facts


def _probes(loaded: Any, held_out: Sequence[Example]) -> list[tuple[str, list[int], Any]]:
    """Held-out prompts with the trained model's logits, float32 [T, vocab]."""
    import numpy as np

    from forge_cli.models.backend import mx
    from forge_cli.models.chat import prompt_ids, prompt_text

    found = []
    positions = 0
    for example in held_out:
        prompt = example.messages[:-1]
        ids = prompt_ids(loaded.tokenizer, prompt)
        logits = loaded.model(mx.array([ids]))[0].astype(mx.float32)
        found.append((prompt_text(loaded.tokenizer, prompt), ids, np.array(logits)))
        positions += len(ids)
        if positions >= _PARITY_POSITIONS:
            break
    return found


def _check(
    file: Path, quant: str, probes: Sequence[tuple[str, list[int], Any]], reporter: Reporter
) -> dict[str, Any]:
    from forge_cli.export.parity import compare

    by_ids = {tuple(ids): logits for _, ids, logits in probes}
    result = compare(
        file,
        mlx_logits=lambda ids: by_ids[tuple(ids)],
        prompts=[(text, ids) for text, ids, _ in probes],
        quant=quant,
        reporter=reporter,
    )
    reporter.note(
        f"{quant}: prompt tokens {'equal' if result.tokens_equal else 'DIFFER'}, "
        f"top token equal at {result.top1_agreement:.2%} of {result.positions} positions, "
        f"mean KL {result.mean_kl:.2g}, worst {result.max_kl:.2g}"
    )
    if not result.passed:
        rejected = file.with_name(file.name + ".rejected")
        file.replace(rejected)
        raise GateFailed(
            f"{rejected}: not the trained model: {'; '.join(result.failures[:3])}",
            "try a larger --quant, such as q8_0 or f16",
        )
    return {k: v for k, v in asdict(result).items() if k not in ("failures", "quant")}


__all__ = ["run"]
