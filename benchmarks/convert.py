"""A Hugging Face folder to a GGUF file: Forge and llama.cpp's converter, a process each, in turn.

python benchmarks/convert.py LLAMA_CPP      (a checkout of llama.cpp; needs torch)

SmolLM2-135M, float16 in the folder. Seconds of the whole process (imports, reading, vocabulary,
writing), by the clock and of the processor; the median of three. Ratio: llama.cpp / Forge, of each
turn. Equal: every tensor has the same type and the same bytes in both files. Forge's process does
not see torch, which it does not need and transformers would import; the converter needs it.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from gguf import GGUFReader

ROUNDS = 3


def convert(folder: str, out: str, quant: str) -> None:
    """What a process of Forge's does."""
    sys.modules["torch"] = None  # type: ignore[assignment]
    from forge_cli.export.gguf import write_gguf
    from forge_cli.export.merge import merged_weights
    from forge_cli.models.load import load_dense

    loaded = load_dense(folder)
    write_gguf(
        Path(out), config=loaded.config, tokenizer_dir=loaded.path,
        weights=merged_weights(loaded.model), quant=quant, name="smollm2",
    )  # fmt: skip


def taken(command: list[str]) -> tuple[float, float]:
    """Seconds that a process takes: by the clock, of the processor."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    clock = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def equal(one: Path, other: Path) -> bool:
    """Whether all tensors are the same."""
    a, b = ({t.name: t for t in GGUFReader(file).tensors} for file in (one, other))
    return a.keys() == b.keys() and all(
        a[n].tensor_type == b[n].tensor_type and np.array_equal(a[n].data, b[n].data) for n in a
    )


def main() -> None:
    """A line for each type."""
    if sys.argv[1:2] == ["--forge"]:
        convert(*sys.argv[2:5])
        return
    root = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LLAMA_CPP")
    if not root:
        sys.exit("give a checkout of llama.cpp, here or as LLAMA_CPP")
    from forge_cli.models.load import load_dense

    folder = str(load_dense("smollm2-135m").path)
    script = str(Path(root) / "convert_hf_to_gguf.py")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':5}{'by the clock, s':>22}{'':8}{'of the processor, s':>22}")
    print(f"{'type':5}{'Forge':>11}{'llama.cpp':>11}{'ratio':>8}{'Forge':>11}{'llama.cpp':>11}"
          f"{'ratio':>8}   equal")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = Path(name) / "ours.gguf", Path(name) / "theirs.gguf"
        for quant in ("f32", "f16"):
            own = [sys.executable, __file__, "--forge", folder, str(ours), quant]
            peer = [sys.executable, script, folder, "--outfile", str(theirs), "--outtype", quant]
            turns = [(taken(own), taken(peer)) for _ in range(ROUNDS)]
            line = f"{quant:5}"
            for at in (0, 1):
                pairs = [(a[at], b[at]) for a, b in turns]
                for seconds in zip(*pairs, strict=True):
                    line += f"{statistics.median(seconds):11.2f}"
                line += f"{statistics.median(b / a for a, b in pairs):8.2f}"
            print(line + f"   {'yes' if equal(ours, theirs) else 'NO'}", flush=True)


if __name__ == "__main__":
    main()
