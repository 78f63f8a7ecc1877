"""Run benchmarks and keep what each printed in RESULTS.md.

python benchmarks/run_all.py [NAME ...]      (none: all of them, which takes hours)

A section of RESULTS.md is a script's exact output, with the day and the machine; the sections of
scripts that are not run stay as they are. `convert` needs a checkout of llama.cpp, in LLAMA_CPP.
"""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"


def known() -> list[str]:
    """The names of all benchmarks."""
    scripts = (file.stem for file in HERE.glob("*.py") if file != Path(__file__))
    return sorted(name for name in scripts if not name.endswith("_runs"))


def sections() -> dict[str, str]:
    """What RESULTS.md holds, by script."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    found = re.split(r"^## (\w+)\.py\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def run(name: str) -> str | None:
    """The section of a script; None where it failed."""
    print(f"running {name}.py", file=sys.stderr)
    done = subprocess.run(
        [sys.executable, str(HERE / f"{name}.py")], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        print(f"{name}.py failed; it had printed:\n{done.stdout}", file=sys.stderr)
        return None
    machine = f"{platform.platform()}, Python {platform.python_version()}"
    return f"\n{datetime.date.today()}, {machine}\n\n```\n{done.stdout.rstrip()}\n```\n\n"


def main() -> None:
    """Run what is named, and write the file anew after each."""
    names = [Path(name).stem for name in sys.argv[1:]] or known()
    if unknown := set(names) - set(known()):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(known())}")
    failed = []
    for name in names:
        section = run(name)
        if section is None:
            failed.append(name)
            continue
        kept = sections() | {name: section}
        body = "".join(f"## {one}.py\n{kept[one]}" for one in sorted(kept))
        head = "# Results\n\nWhat the benchmarks printed; made by `benchmarks/run_all.py`.\n\n"
        RESULTS.write_text((head + body).rstrip() + "\n", encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
