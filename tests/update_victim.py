"""A process that updates a run and, when told to, kills itself on the way.

python tests/update_victim.py BASE REPOSITORY RUN [ops:K | step:K]

What the moments mean stands in `victim.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forge_cli.core.run_dir import RunDir
from forge_cli.pipeline.update import update
from victim import kill_at_operation, kill_at_step


def main() -> None:
    """Update to the end, or until the moment that the fourth argument names."""
    base, source, run = map(Path, sys.argv[1:4])
    kind, _, count = sys.argv[4].partition(":") if len(sys.argv) > 4 else ("", "", "")
    if kind == "ops":
        kill_at_operation(run, int(count))
    elif kind == "step":
        kill_at_step(int(count))
    update(RunDir.load(base), source, run)


if __name__ == "__main__":
    main()
