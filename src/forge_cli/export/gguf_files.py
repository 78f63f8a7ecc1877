"""A GGUF for each type, compared with the trained model in llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError, GateFailed, PromptDiffers
from forge_cli.core.events import Reporter
from forge_cli.export.gguf import Importance, write_gguf
from forge_cli.export.merge import merged_weights
from forge_cli.export.parity import Probe, compare
from forge_cli.export.prompts import PromptsResult, compare_prompts
from forge_cli.models.load import Loaded, licence_of
from forge_cli.models.resolve import public_name

# By whether the rendered prompts are equal, and whether only once the date is.
_SAID = {
    (True, False): "prompt equal byte for byte",
    (True, True): "prompt equal but for the date",
    (None, False): "prompt not rendered",
}


def write_files(
    loaded: Loaded,
    out: Path,
    name: str,
    *,
    quants: Sequence[str],
    probes: Sequence[Probe] | None,
    importance: Importance | None = None,
    provenance: Mapping[str, str] | None = None,
    reporter: Reporter,
) -> tuple[list[Path], dict[str, Any]]:
    """The files, and what their comparison came to by `parity.<type>`.

    Args:
        probes: prompts to compare on; None: nothing is compared.
        importance: what the coder weighs errors by.
        provenance: more metadata.

    Raises:
        GateFailed: a file is not the trained model; it is kept as `….rejected`.
    """
    weights = merged_weights(loaded.model)
    metadata = {"general.finetune": "forge", "general.base_model.0.name": public_name(loaded.name)}
    metadata |= provenance or {}
    if licence := licence_of(loaded.name):
        metadata["general.license"] = licence
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
            importance=importance,
            reporter=reporter,
        )
        if probes is not None:
            facts[f"parity.{quant}"] = _check(file, quant, probes, reporter)
        files.append(file)
        reporter.note(f"wrote {file} ({file.stat().st_size / 1e6:.0f} MB)")
    return files, facts


def _check(file: Path, quant: str, probes: Sequence[Probe], reporter: Reporter) -> dict[str, Any]:
    prompts = _check_prompts(file, probes, reporter)
    by_ids = {tuple(probe.ids): probe.logits for probe in probes}
    result = compare(
        file,
        mlx_logits=lambda ids: by_ids[tuple(ids)],
        prompts=[(probe.text, probe.ids) for probe in probes],
        quant=quant,
        reporter=reporter,
    )
    reporter.note(
        f"{quant}: prompt tokens {'equal' if result.tokens_equal else 'DIFFER'}, "
        f"{_SAID[prompts.equal, prompts.dated]}, "
        f"top token equal at {result.top1_agreement:.2%} of {result.positions} positions, "
        f"mean KL {result.mean_kl:.2g}, worst {result.max_kl:.2g}, "
        f"perplexity {result.perplexity:.4g} (trained {result.trained_perplexity:.4g})"
    )
    if not result.passed:
        raise GateFailed(
            f"{_reject(file)}: not the trained model: {'; '.join(result.failures[:3])}",
            "try a larger --quant, such as q8_0 or f16",
        )
    facts = {k: v for k, v in asdict(result).items() if k not in ("failures", "quant")}
    told = {"prompts_equal": prompts.equal, "prompts_dated": prompts.dated}
    return facts | told | {"perplexity_ratio": result.perplexity_ratio}


def _check_prompts(file: Path, probes: Sequence[Probe], reporter: Reporter) -> PromptsResult:
    """The file's own template, rendered by llama.cpp.

    Raises:
        PromptDiffers: it does not give training's prompts.
    """
    try:
        found = compare_prompts(file, probes)
        failures = found.failures
    except ForgeError as error:
        failures = [error.message.removeprefix(f"{file}: ")]
    if failures:
        raise PromptDiffers(
            f"{_reject(file)}: not the prompts of training: {'; '.join(failures[:3])}",
            "export with --no-parity: forge deploy sends Ollama a TEMPLATE where its prompt "
            "differs; for other servers choose another base",
        )
    if found.equal is None:
        reporter.warn(
            "llama-server is not in this wheel of llama.cpp: whether the file's template gives "
            "training's prompts was not checked"
        )
    if found.dated:
        reporter.warn(
            "the chat template prints a date: a server prints today's, training saw the "
            "template's own; all else in the prompts is equal"
        )
    return found


def _reject(file: Path) -> Path:
    return file.replace(file.with_name(file.name + ".rejected"))
