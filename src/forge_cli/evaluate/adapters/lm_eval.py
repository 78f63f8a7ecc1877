"""lm-eval's own command line, with the model `forge`.

    python -m forge_cli.evaluate.adapters.lm_eval --model forge \\
        --model_args run=.forge/runs/NAME,side=tuned --tasks TASK

lm-eval knows the models that something registered before it looks one up, and asks no entry point
of other packages: `lm_eval --model forge` itself cannot work (0.4.13).
"""

from __future__ import annotations

import sys

from forge_cli.core.errors import ForgeError

_MODEL = "forge_cli.evaluate.adapters.lm_eval_model:ForgeLM"


def register() -> None:
    """Make `forge` known to lm-eval in this process; it is imported when it is asked for.

    Raises:
        ForgeError: lm-eval is not installed.
    """
    try:
        import lm_eval.models  # its own ones: lm-eval adds them only where there are none yet
        from lm_eval.api.registry import model_registry
    except ModuleNotFoundError as error:
        raise ForgeError(
            f"lm-eval is not installed (no module {error.name})", "pip install 'forge-cli[lm-eval]'"
        ) from None
    assert lm_eval.models
    if "forge" not in model_registry:
        model_registry.register("forge", target=_MODEL)


def main() -> int:
    """Run lm-eval with the arguments of this process; returns the exit code."""
    try:
        register()
        from lm_eval.__main__ import cli_evaluate

        cli_evaluate()
    except ForgeError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
