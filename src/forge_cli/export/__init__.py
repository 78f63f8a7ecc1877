"""Write the tuned model for others to load, and prove that it answers as the trained one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Example

if TYPE_CHECKING:
    from forge_cli.export.gguf import Importance
    from forge_cli.models.load import Loaded

# What can be written: a GGUF for each type, and directories.
KINDS = ("gguf", "mlx", "safetensors", "adapter", "peft")


def run(
    *,
    adapters: Path,
    out: Path,
    name: str,
    to: Sequence[str] = ("gguf",),
    quants: Sequence[str] = ("q4_k_m",),
    mlx_bits: int = 8,
    mlx_group_size: int = 64,
    dtype: str = "auto",
    held_out: Sequence[Example] = (),
    calibration: Sequence[Example] = (),
    provenance: Mapping[str, str] | None = None,
    parity: bool = True,
    reporter: Reporter = SILENT,
) -> tuple[list[Path], dict[str, Any]]:
    """Write what `to` names and compare each with the trained model.

    gguf: merged in float32, one file for each of `quants`, compared in llama.cpp. mlx: merged
    and quantised anew, for mlx-lm. safetensors: merged, for transformers and others. adapter:
    the quantised residual and mlx-lm's adapter for it. peft: an adapter for the original base.

    Args:
        mlx_bits, mlx_group_size: how mlx is quantised; 16 bits: it is not.
        dtype: of safetensors, and of what mlx does not quantise; auto: as the base was published.
        held_out: rows whose prompts both models read.
        calibration: rows that the tuned model reads whole for an importance matrix, by which a
            GGUF's coder weighs errors; none: it weighs all columns alike.
        provenance: more metadata of a GGUF, by key: where it comes from.
        parity: compare; without it nothing shows that a file is right.

    Returns:
        The files, and `parity.<type>` → positions, top1_agreement, mean_kl, max_kl (for GGUF
        also tokens_equal, prompts_equal, prompts_dated, perplexity, trained_perplexity,
        perplexity_ratio).

    Raises:
        GateFailed: a file is not the trained model, or its prompts are not (`PromptDiffers`); it
            is kept as `….rejected`.
        ForgeError: an architecture or tokenizer that cannot be written, or llama.cpp is
            missing while parity is asked for.
    """
    from forge_cli.export.directories import Form, write_directory
    from forge_cli.export.gguf_files import write_files
    from forge_cli.export.prompts import make_probes
    from forge_cli.models import llamacpp
    from forge_cli.models.adapters import load_tuned

    if parity and "gguf" in to and not llamacpp.available():
        raise ForgeError(
            "llama.cpp is not installed, so the export cannot be checked",
            "pip install 'forge-cli[parity]', or say --no-parity",
        )
    loaded = load_tuned(adapters, reporter=reporter)
    probes = make_probes(loaded, held_out) if parity else None
    files: list[Path] = []
    facts: dict[str, Any] = {}
    form = Form(dtype, mlx_bits, mlx_group_size)
    for kind in dict.fromkeys(to):
        if kind == "gguf":
            importance = _importance(loaded, calibration, reporter) if calibration else None
            found, parities = write_files(
                loaded, out, name, quants=quants, probes=probes, importance=importance,
                provenance=provenance, reporter=reporter,
            )  # fmt: skip
        else:
            found, parities = write_directory(
                kind, loaded, adapters, out / f"{name}-{kind}",
                form=form, probes=probes, reporter=reporter,
            )  # fmt: skip
        files += found
        facts |= parities
    return files, facts


def _importance(loaded: Loaded, rows: Sequence[Example], reporter: Reporter) -> Importance:
    from forge_cli.export.activations import mean_squares
    from forge_cli.export.gguf import Importance
    from forge_cli.models.chat import tokenise

    ids = [tokenise(loaded.tokenizer, row.messages).ids for row in rows]
    means = mean_squares(loaded.model, ids, reporter)
    return Importance(means, len(ids), "rows that the model was trained on")


__all__ = ["KINDS", "run"]
