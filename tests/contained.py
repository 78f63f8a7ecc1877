"""Runs code contained, from a process of its own: python contained.py CODE [SECONDS].

Prints why_not(), and if that is "" the exit code, why and output. It needs no package but Forge's
source, so that the system's Python can run it as a user who may not read this one's.
"""

import signal
import sys
import types
from pathlib import Path

SRC = Path(__file__).parents[1] / "src"
sys.path.insert(0, str(SRC))
# The package itself imports MLX; the sandbox does not.
evaluate = types.ModuleType("forge_cli.evaluate")
evaluate.__path__ = [str(SRC / "forge_cli" / "evaluate")]
sys.modules[evaluate.__name__] = evaluate

from forge_cli.evaluate.sandbox import Limits, run_contained, why_not  # noqa: E402

# A parent in the background ignores SIGINT, and its children would too.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("why_not:", why_not(), flush=True)
if not why_not():
    limits = Limits(seconds=float((sys.argv[2:] or ["60"])[0]), memory_bytes=256 << 20)
    done = run_contained([sys.executable, "-I", "-c", sys.argv[1]], files={}, limits=limits)
    print("ended:", done.exit_code, done.why, done.stdout, done.stderr)
