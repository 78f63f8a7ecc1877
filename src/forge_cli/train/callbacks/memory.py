"""Keep training within a limit of memory: free, warn, cut batches smaller, and at last stop."""

from __future__ import annotations

from forge_cli.models.backend import mx
from forge_cli.train.callbacks.protocol import Abort, Callback, Run
from forge_cli.train.step import Step


class Memory(Callback):
    """Watches what each step needed and what the largest batch of the plan would.

    MLX keeps freed memory for reuse (the cache); it counts as used until it is cleared.
    A Metal out-of-memory kills the process, so the batch is stepped down before it comes:
    its rows run in parts, whose gradients add up to the same.

    Args:
        limit: bytes that training may use.
        warn_share, high_share: of the limit: warn and clear the cache; step down.
    """

    def __init__(self, limit: int, *, warn_share: float = 0.8, high_share: float = 0.9) -> None:
        self.limit = limit
        self.warn_bytes, self.high_bytes = int(limit * warn_share), int(limit * high_share)
        self._warned = False

    def on_step(self, run: Run, step: Step) -> None:
        """Judge the step that was taken, and foresee the largest.

        Raises:
            Abort: more than the limit was needed although rows ran one by one.
        """
        if step.step_bytes + mx.get_cache_memory() > self.warn_bytes:
            mx.clear_cache()
        if step.step_bytes > self.warn_bytes and not self._warned:
            self._warned = True
            run.reporter.warn(
                f"step {step.step} needed {_gb(step.step_bytes)} of {_gb(self.limit)} of memory"
            )
        if step.step_bytes > self.limit and step.largest_rows == 1:
            raise Abort(
                f"step {step.step} needed {_gb(step.step_bytes)} of memory, {_gb(self.limit)} "
                "are allowed, and its rows already run one by one",
                "the checkpoint is saved; close other programs or raise memory_limit and run the "
                "same command, or start over with gradient_checkpointing or smaller rows",
            )
        if not step.largest_rows:
            return  # all was added up before an interrupt: nothing ran in this step
        resident = mx.get_active_memory()
        each = max(1, step.step_bytes - resident) / max(1, step.largest_tokens)
        at_most = run.progress.max_tokens or run.largest_tokens
        parts_can_shrink = step.largest_rows > 1 or at_most > step.largest_tokens
        if resident + each * at_most > self.high_bytes and parts_can_shrink:
            room = int(max(0, self.high_bytes - resident) / each)
            # At least halved each time, so that few steps suffice where the guess is off.
            run.progress.max_tokens = max(1, min(room, at_most // 2))
            run.reporter.warn(
                f"memory: a batch of {at_most} tokens would need more than {_gb(self.high_bytes)}: "
                f"from now on at most {run.progress.max_tokens} tokens run at once (same result)"
            )


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
