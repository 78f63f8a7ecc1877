"""Kill one of two training processes at random moments; resumed, each run ends in the same bytes.

`tests/rank.py` twice (ring): a tiny random model, three batches a step. One run goes through
undisturbed; in each of the others one rank gets SIGKILL, SIGTERM or SIGSTOP from outside, at a
moment drawn evenly over the time that the undisturbed one took. Told is how long the other rank
took to end; after it the same command runs again, with both.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forge_cli.pipeline.hosts import find_addresses

ROOT = Path(__file__).parents[1]
LOSSES, STEPS, SEED, MISSED = 20, 24, 0, 5
SIGNALS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP]


def start(out: Path) -> list[subprocess.Popen[str]]:
    """Both ranks."""
    out.mkdir(exist_ok=True)
    hosts = out / "hosts.json"
    hosts.write_text(json.dumps([[a] for a in find_addresses(["localhost", "localhost"])]))
    env = os.environ | {"OMP_NUM_THREADS": "1", "MLX_HOSTFILE": str(hosts)}
    args = [sys.executable, str(ROOT / "tests" / "rank.py"), str(out)]
    args += [f"steps={STEPS}", f"missed={MISSED}", "together=20"]
    return [
        subprocess.Popen(args, env=env | {"MLX_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]


def finish(ranks: list[subprocess.Popen[str]]) -> None:
    """Wait for both; they must end well."""
    errors = [rank.communicate()[1] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        sys.exit(f"training failed:\n{errors}")


def result(out: Path) -> list[bytes]:
    """The final adapters, the last checkpoint and the losses."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = repr([(row["step"], row.get("loss"), row.get("valid_loss")) for row in rows]).encode()
    last = sorted((out / "checkpoints").glob("step-*"))[-1]
    return [(out / "adapters.safetensors").read_bytes(), last.read_bytes(), losses]


def main() -> None:
    """Print a line for each loss; exit 1 when one run ends otherwise."""
    draw, differ = random.Random(SEED), 0
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        began = time.monotonic()
        finish(start(whole))
        took = time.monotonic() - began
        print(f"undisturbed: {STEPS} steps, {took:.1f} s")
        print(f"{'signal':<10}{'to rank':>8}{'after s':>9}{'told s':>8}{'kept':>6}  the other said")
        for number in range(LOSSES):
            out, who = Path(name) / str(number), number % 2
            kind = draw.choice(SIGNALS)
            ranks, moment = start(out), draw.uniform(0, took)
            time.sleep(moment)
            ranks[who].send_signal(kind)
            began = time.monotonic()
            said = ranks[1 - who].communicate()[1].splitlines()
            told = time.monotonic() - began
            ranks[who].kill()
            ranks[who].communicate()
            kept = sorted((out / "checkpoints").glob("step-*"))
            step = int(kept[-1].stem[5:]) if kept else "none"
            last = said[-1] if said else "nothing: the run was done"
            print(f"{kind.name:<10}{who:>8}{moment:>9.1f}{told:>8.1f}{step:>6}  {last}", flush=True)
            finish(start(out))
            if result(out) != result(whole):
                differ += 1
                print("  ended in other bytes")
    print(f"{LOSSES - differ} of {LOSSES} resumed runs end in the same bytes")
    sys.exit(differ != 0)


if __name__ == "__main__":
    main()
