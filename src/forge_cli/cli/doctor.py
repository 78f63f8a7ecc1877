"""`forge doctor`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from forge_cli.cli._options import Json, Quiet, Verbose, settings
from forge_cli.cli._output import Output

if TYPE_CHECKING:
    from forge_cli.core.config import Settings
    from forge_cli.doctor import Finding


def doctor(json_lines: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Look at the machine: chip, memory, MLX, BLAS, model, llama.cpp, Ollama, disk.

    Example: forge doctor
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    s = settings({}).settings
    from forge_cli.doctor import examine

    findings = [*examine(s.host, s.model), *_training(s)]
    if json_lines:
        print(json.dumps([vars(finding) for finding in findings]))
    for finding in findings if not json_lines else ():
        print(f"{'ok  ' if finding.ok else 'MISS'} {finding.name}: {finding.value}")
    output.next("forge train REPO" if all(f.ok or f.optional for f in findings) else "mend MISS")


def _training(s: Settings) -> list[Finding]:
    """What training would take here: with the settings, and on a Mac with each recipe for it."""
    from forge_cli.doctor import Finding
    from forge_cli.models.backend import device_memory, on_gpu
    from forge_cli.pipeline.foresee import peak_bytes, recipe_peak
    from forge_cli.recipes import list_recipes, load_recipe

    limit = device_memory()
    peaks = {s.model: peak_bytes(s)}
    if on_gpu():
        peaks |= {f"recipe {name}": recipe_peak(name, load_recipe(name)) for name in list_recipes()}
    return [
        Finding(
            f"training {name}",
            f"about {peak / 1e9:.1f} GB at the peak, of {limit / 1e9:.1f} GB",
            ok=peak <= limit,
            optional=True,
        )
        for name, peak in peaks.items()
        if peak and (peak <= limit or name == s.model)
    ]
