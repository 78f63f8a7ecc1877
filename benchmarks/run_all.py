"""Run every benchmark here and write what each printed to RESULTS.md."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """One section per script, with its exact output; fails when one of them does."""
    failed = []
    lines = [
        "# Results\n",
        f"{platform.platform()}, Python {platform.python_version()}. Made by `make bench`.\n",
    ]
    for script in sorted(HERE.glob("*.py")):
        if script.name == Path(__file__).name or script.stem.endswith("_runs"):
            continue
        print(f"running {script.name}", file=sys.stderr)
        done = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            failed.append(script.name)
        output = done.stdout if done.returncode == 0 else done.stdout + done.stderr[-2000:]
        lines += [f"## {script.name}\n", f"```\n{output.rstrip()}\n```\n"]
    (HERE / "RESULTS.md").write_text("\n".join(lines))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; see {HERE.name}/RESULTS.md")


if __name__ == "__main__":
    main()
