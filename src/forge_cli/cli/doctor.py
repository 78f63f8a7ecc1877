"""`forge doctor`."""

from __future__ import annotations

import json

from forge_cli.cli._options import Json, Quiet, Verbose, settings
from forge_cli.cli._output import Output


def doctor(json_lines: Json = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Look at the machine: chip, memory, MLX, BLAS, model, llama.cpp, Ollama, disk.

    Example: forge doctor
    """
    output = Output(json_lines=json_lines, quiet=quiet)
    s = settings({}).settings
    from forge_cli.doctor import examine

    findings = examine(s.host, s.model)
    if json_lines:
        print(json.dumps([vars(finding) for finding in findings]))
    for finding in findings if not json_lines else ():
        print(f"{'ok  ' if finding.ok else 'MISS'} {finding.name}: {finding.value}")
    output.next("forge train REPO" if all(f.ok or f.optional for f in findings) else "mend MISS")
