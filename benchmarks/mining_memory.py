"""Memory of `forge mine` as the repository grows (Linux: it reads /proc).

python benchmarks/mining_memory.py [TREE]      (none: the standard library of Python)

The tree is mined once, and as four copies side by side, with links and without. Printed: the
largest resident set of the command itself and of the largest of its processes, in MB.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

COPIES, POLL = 4, 0.1


def copy(tree: Path, to: Path) -> int:
    """Copy what is Python in a tree, without installed packages; its bytes."""
    skipped = shutil.ignore_patterns("site-packages", "__pycache__", "*.so", "*.a")
    shutil.copytree(tree, to, ignore=skipped)
    return sum(file.stat().st_size for file in to.rglob("*.py"))


def peak(pid: int) -> int:
    """The largest resident set of a process so far, in kB; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def mined(tree: Path, *flags: str) -> tuple[int, int]:
    """(peak of the command, peak of the largest of its processes), in kB."""
    command = [sys.executable, "-m", "forge_cli", "mine", str(tree), "--no-cache", "-q", *flags]
    own = largest = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            own = max(own, peak(process.pid))
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            for child in children.read_text().split() if children.exists() else ():
                largest = max(largest, peak(int(child)))
            time.sleep(POLL)
    if process.returncode:
        sys.exit(f"forge mine failed: exit code {process.returncode}")
    return own, largest


def main() -> None:
    """Print the table."""
    if not Path("/proc/self/status").exists():
        print("not run: this system has no /proc")
        return
    tree = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["stdlib"])
    print(f"{'':12}{'Python, MB':>12}{'command, MB':>14}{'process, MB':>14}")
    with tempfile.TemporaryDirectory() as folder:
        size = 0
        for count in (1, COPIES):
            root = Path(folder) / "tree"
            for number in range(root.exists(), count):
                size += copy(tree, root / str(number))
            for flags in (["--no-links"], ["--links"]):
                own, largest = mined(root, *flags)
                name = flags[0].removeprefix("--")
                print(f"{name:12}{size / 1e6:12.1f}{own / 1e3:14.0f}{largest / 1e3:14.0f}")


if __name__ == "__main__":
    main()
