"""Kill training with SIGKILL at twenty random moments; resumed, each must end in the same bytes.

A tiny random model is trained by `tests/victim.py`: PiSSA on 4 bits, two batches a step, NEFTune
noise, a checkpoint after every step. One run goes through undisturbed; each of the others is
killed from outside, at a moment drawn evenly over the time that the undisturbed one took from its
first file on, and started again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

KILLS = 20
STEPS = 40
SEED = 0


def start(model: Path, out: Path) -> subprocess.Popen[bytes]:
    """A training process."""
    args = [sys.executable, str(ROOT / "tests" / "victim.py"), str(model), str(out), "", str(STEPS)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(args, env=env, stderr=subprocess.PIPE)


def wait_for_files(process: subprocess.Popen[bytes], out: Path) -> float:
    """The time when the first file stands in the run directory."""
    while process.poll() is None and not out.exists():
        time.sleep(0.002)
    return time.monotonic()


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for it; it must end well."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"training failed:\n{errors.decode()}")


def digest(out: Path) -> str:
    """SHA-256 over the final adapters, the last checkpoint and the losses."""
    found = hashlib.sha256((out / "adapters" / "adapters.safetensors").read_bytes())
    found.update(sorted((out / "checkpoints").glob("step-*"))[-1].read_bytes())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = [(row["step"], row.get("loss"), row.get("valid_loss")) for row in rows]
    found.update(repr(losses).encode())
    return found.hexdigest()


def reached(out: Path) -> str:
    """What a killed run had on disk: its last checkpoint and half-written files."""
    files = sorted((out / "checkpoints").glob("step-*"))
    step = str(int(files[-1].stem[5:])) if files else "none"
    torn = sum(1 for file in out.rglob(".*") if file.is_file()) if out.exists() else 0
    return f"{step:>15}  {torn:>18}"


def main() -> None:
    """Print a line for each kill; exit 1 when one run ends otherwise."""
    from tiny_train import save_model

    moments = random.Random(SEED)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = save_model(place / "model")
        process = start(model, place / "whole")
        started = wait_for_files(process, place / "whole")
        finish(process)
        whole = time.monotonic() - started
        want = digest(place / "whole")
        print(f"undisturbed: {whole:.2f} s, SHA-256 {want[:12]}")
        print("kill  after s  last checkpoint  half-written files  resumed to the same bytes")
        for number in range(1, KILLS + 1):
            out, after = place / f"run-{number}", moments.uniform(0.0, whole)
            process = start(model, out)
            wait_for_files(process, out)
            time.sleep(after)
            process.kill()
            process.communicate()
            before = reached(out)
            finish(start(model, out))
            same = digest(out) == want
            wrong += not same
            print(f"{number:>4}  {after:>7.2f}  {before}  {'yes' if same else 'NO'}", flush=True)
    print(f"{KILLS - wrong} of {KILLS} resumed to the identical adapters")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
