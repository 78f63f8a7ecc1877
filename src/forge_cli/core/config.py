"""Settings and where each comes from.

    flag > FORGE_* environment > forge.yaml of the project > user file > recipe > default

The components never see this: they take flat keyword arguments.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forge_cli.core.errors import UsageError
from forge_cli.core.places import user_file
from forge_cli.core.yaml_file import read_yaml

Init = Literal["pissa", "qpissa", "lora", "loftq", "dora"]
LayerRange = Annotated[
    str, Field(pattern=r"^(all|(first|last) \d+|\d+ *- *\d+( *, *\d+ *- *\d+)*)$")
]
Condition = Literal[
    "given",
    "reworded",
    "unseen",
    "oracle",
    "distractors",
    "closed_book",
    "retrieved",
    "completion",
    "perplexity",
    "humaneval",
    "latency",
    "later",
    "repo_tests",
]
ExportKind = Literal["gguf", "mlx", "safetensors", "adapter", "peft"]
Quant = Literal[
    "auto", "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q4_0",
    "iq4_nl", "iq4_xs", "mxfp4", "q3_k_l", "q3_k_m", "q3_k_s",
]  # fmt: skip
OptimiserName = Literal["adamw", "adafactor", "lion", "muon"]
ScheduleName = Literal["cosine", "linear", "constant", "wsd"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


class Settings(BaseModel):
    """Every setting of every stage; the flags, the files and the recipes all use these names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        "smollm2-135m", description="built-in name, Hugging Face id, directory or .gguf file"
    )
    seed: int = Field(0, ge=0, description="of questions, distractors, order and resampling")

    lang: list[str] = Field(default_factory=list, description="languages to mine (none: all)")
    max_chars: int = Field(1500, ge=200, description="largest chunk, in characters")
    jobs: int = Field(0, ge=0, description="processes to mine with (0: one per core)")
    links: bool = Field(True, description="find out who calls whom in the repository")
    cache: bool = Field(True, description="keep what was mined, and parse only what changed")

    teacher: str = Field(
        "none",
        pattern=r"^(none|(mlx|ollama|openai):\S.*)$",
        description="who writes more questions: none, mlx:MODEL, ollama:MODEL or openai:MODEL",
    )
    teacher_url: str | None = Field(
        None, description="the teacher's server, with /v1 (none: Ollama's or OpenAI's own)"
    )
    teacher_jobs: int = Field(4, ge=1, le=64, description="requests to the teacher at once")
    teacher_timeout: float = Field(120.0, gt=0, description="seconds for one try of a request")
    teacher_price: list[float] = Field(
        default_factory=list, max_length=2, description="of a million prompt and completion tokens"
    )
    distractors: int = Field(3, ge=0, le=16, description="distractors beside each oracle document")
    oracle_p: float = Field(0.8, ge=0, le=1, description="share of rows that show the oracle")
    questions: int = Field(4, ge=1, description="questions per definition, at the most")

    test_share: float = Field(0.15, gt=0, lt=0.5, description="share of the files held out to test")
    valid_share: float = Field(0.1, gt=0, lt=0.5, description="share of the files to validate on")
    max_tokens: int = Field(2048, ge=128, description="longest row, in tokens")
    split: Literal["file", "time"] = Field(
        "file", description="test on files drawn by seed, or on those that changed last"
    )
    min_examples: int = Field(0, ge=0, description="gate: fewer sound examples than this exit 3")
    max_rejects: float = Field(1.0, ge=0, le=1, description="gate: a larger rejected share exits 3")

    min_quality: float = Field(0.0, ge=0, le=1, description="gate: a lower quality exits 3")
    held_kinds: list[str] = Field(
        default_factory=list,
        description="kinds of questions to test on alone, such as raises: no row of them trains",
    )
    fix: bool = Field(False, description="mend rows where that leaves no doubt")
    base_loss: list[float] | None = Field(
        None, min_length=2, max_length=2,
        description="least and most loss of an answer under the base (none: not looked at)",
    )  # fmt: skip

    init: Init = Field("qpissa", description="how A and B start")
    rank: int = Field(16, ge=1, description="rank r of the adapters")
    rank_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="other ranks: name or glob as in targets → rank"
    )
    alpha: float | None = Field(None, gt=0, description="scale is alpha/rank (none: alpha = rank)")
    rslora: bool = Field(False, description="scale is alpha/√rank, for large ranks")
    dora: bool = Field(False, description="train a magnitude for each output row too")
    svd_iterations: Annotated[int, Field(ge=0)] | Literal["exact"] = Field(
        4, description="power iterations of the fast SVD in an init, or exact"
    )
    alternations: int = Field(
        5, ge=0, le=20, description="rounds T of qpissa and loftq against the quantiser"
    )
    bits: Literal[2, 3, 4, 6, 8, 16] = Field(4, description="bits of the base (16: not quantised)")
    quant_mode: Literal["affine", "mxfp4"] = Field(
        "affine", description="MLX's quantiser (mxfp4: 4 bits, group_size 32)"
    )
    group_size: Literal[32, 64, 128] = Field(64, description="weights per quantisation scale")
    targets: list[str] = Field(
        default_factory=lambda: [
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
        description="linear layers that get adapters: last part of the name, or a glob of it all",
    )  # fmt: skip
    layers: Annotated[int, Field(ge=0)] | LayerRange = Field(
        16, description="layers that get adapters: 16 (the last 16), first 4, 8-23, 0-3,20-23, all"
    )
    adapters: str | None = Field(
        None, description="run or folder (also PEFT's) whose adapters training goes on from"
    )
    loss: Literal["sft", "raft", "dpo"] = Field(
        "sft",
        description="sft: all tokens of an answer count alike; raft: by span_weights; "
        "dpo: preferences",
    )
    beta: float = Field(0.1, gt=0, description="of loss dpo: larger keeps nearer to the start")
    span_weights: list[float] = Field(
        default_factory=lambda: [0.5, 1.0, 2.0], min_length=3, max_length=3,
        description="of a token of the reason, of a quote and of the answer, for loss raft",
    )  # fmt: skip
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="probability spread evenly")
    z_loss: float = Field(0.0, ge=0, description="weight of the squared log of the softmax's sum")
    steps: int | None = Field(None, ge=1, description="optimiser steps (none: by epochs)")
    epochs: float | None = Field(
        None, gt=0, description="passes over the training examples (none: one, and of few examples "
        "up to four, for 100 steps)",
    )  # fmt: skip
    budget: str | None = Field(
        None, pattern=r"^(\d+[hms])+$",
        description="time for training, such as 45m or 1h30m: so many of the steps as fit",
    )  # fmt: skip
    learning_rate: float | None = Field(
        None, gt=0, description="peak learning rate (none: suited to the model's width)"
    )
    optimiser: OptimiserName = Field("adamw", description="what turns gradients into updates")
    schedule: ScheduleName = Field("cosine", description="learning rate after the warm-up")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps that warm up")
    decay: float = Field(0.2, ge=0, le=1, description="share of the steps that fall, under wsd")
    weight_decay: float = Field(0.0, ge=0, description="weight decay of the optimiser")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    accumulate: int = Field(1, ge=1, description="batches that make one step together")
    step_tokens: int = Field(
        0, ge=0, description="tokens of a step, in place of accumulate (0: by accumulate)"
    )
    packing: bool = Field(
        True, description="rows that share no context run together, blind to one another"
    )
    neftune: float = Field(0.0, ge=0, description="NEFTune noise alpha on embeddings (0: none)")
    gradient_checkpointing: bool = Field(
        False, description="compute activations again instead of keeping them: less memory"
    )
    compile_step: Literal["auto", "on", "off"] = Field(
        "auto", description="run the optimiser's update as one compiled graph (auto: on a GPU)"
    )
    memory_limit: float | None = Field(
        None, gt=0, description="gigabytes to train in (none: what is free at the start)"
    )
    valid_every: int = Field(20, ge=1, description="steps between validations")
    valid_rows: int = Field(24, ge=1, description="rows of the fixed validation set")
    save_every: int = Field(
        0, ge=0, description="steps between checkpoints, besides one at each validation (0: none)"
    )
    keep_last: int = Field(2, ge=1, description="checkpoints to keep, besides the best one")
    keep_start: bool = Field(
        True, description="keep what training began with if no step is better on the valid split"
    )
    patience: int = Field(
        0, ge=0, description="stop after so many validations without a better loss (0: never)"
    )
    min_delta: float = Field(0.0, ge=0, description="what counts as better, in nats")
    sample_every: int = Field(
        0, ge=0, description="validations between samples in samples.jsonl (0: none)"
    )
    sample_rows: int = Field(3, ge=1, description="validation prompts to answer for a sample")
    track: list[Tracker] = Field(
        default_factory=list, description="also log to tensorboard, wandb or mlflow"
    )
    hosts: list[str] = Field(
        default_factory=list, description="machines that train together, this one first"
    )

    suites: list[str] = Field(
        ["raft"], min_length=1,
        description="what is asked and what counts: raft, completion …, or .yaml files",
    )  # fmt: skip
    eval_rows: int = Field(200, ge=1, description="test rows for the loss, at the most")
    answer_rows: int = Field(48, ge=0, description="test rows to generate answers for")
    condition_rows: int = Field(
        24, ge=0, description="of these, how many also under each other condition"
    )
    conditions: list[Condition] | None = Field(
        None, description="how questions are asked (none: as the suites say)"
    )
    sides: list[str] = Field(
        default_factory=lambda: ["base", "base+examples", "tuned"],
        description="what is compared: base, tuned, checkpoint:STEP, a GGUF file, a run, "
        "ollama:NAME, openai:NAME; +examples shows worked answers",
    )
    judge: str | None = Field(
        None, description="model that compares answers too: mlx:MODEL, ollama:MODEL, openai:MODEL"
    )
    execute: bool = Field(
        False, description="let the judge run generated code, contained, where a suite needs it"
    )
    samples: int = Field(
        1, ge=1, le=200,
        description="answers to each HumanEval problem: 1 greedy, or so many drawn, for pass@k",
    )  # fmt: skip
    test_command: list[str] | str = Field(
        "python -m pytest -x -q -p no:cacheprovider {tests}",
        description="runs the repository's tests in its folder (repo-tests); {tests}: which ones",
    )
    resamples: int = Field(10_000, ge=1000, description="bootstrap resamples")

    to: list[ExportKind] = Field(["gguf"], description="what export writes")
    quant: list[Quant] = Field(
        ["q4_k_m"], description="GGUF types to write; auto: the smallest that keeps enough"
    )
    mlx_bits: Literal[4, 6, 8, 16] = Field(
        8, description="bits of what is written for mlx-lm (16: not quantised)"
    )
    mlx_group_size: Literal[32, 64, 128] = Field(
        64, description="weights per quantisation scale of what is written for mlx-lm"
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="of safetensors and unquantised mlx (auto: as the base was published)"
    )
    retention_rows: int = Field(
        24, ge=0, description="test rows on which a file shows what it keeps of the gain (0: none)"
    )
    importance_rows: int = Field(
        16, ge=0, description="training rows read for a GGUF's importance matrix (0: none)"
    )
    parity: bool = Field(True, description="check the exported file in llama.cpp")
    host: str = Field("http://127.0.0.1:11434", description="Ollama server")
    num_ctx: int | None = Field(
        None, ge=256, description="context served, in tokens (none: 8192, or the model's if less)"
    )
    smoke_questions: int = Field(
        4, ge=0, description="test rows that a new version must answer before it is served"
    )
    keep_versions: int = Field(3, ge=1, description="versions of a name that stay on the server")


# Not part of what a run *is*: the same run directory may be taken up with other values.
RUNTIME = {
    "jobs", "cache", "teacher_url", "teacher_jobs", "teacher_timeout", "teacher_price", "host",
    "to", "quant", "mlx_bits", "mlx_group_size", "dtype", "parity", "retention_rows",
    "importance_rows", "min_examples", "max_rejects", "min_quality", "memory_limit",
    "save_every", "keep_last", "track", "hosts", "num_ctx", "smoke_questions", "keep_versions",
}  # fmt: skip
_ENV_NOT_SETTINGS = {
    "FORGE_ACCELERATOR", "FORGE_CACHE", "FORGE_DATA", "FORGE_QUEUE", "FORGE_RECIPE", "FORGE_TOKEN",
    "FORGE_URL",
}  # fmt: skip


@dataclass(frozen=True)
class Resolved:
    """The settings in force and, for each, where it came from.

    Attributes:
        chosen: why a recipe was taken that nobody named ("": none was).
    """

    settings: Settings
    origins: dict[str, str]
    chosen: str = ""

    def identity(self) -> dict[str, Any]:
        """The settings that make a run what it is."""
        return {k: v for k, v in self.settings.model_dump().items() if k not in RUNTIME}


def resolve(
    flags: Mapping[str, Any],
    *,
    project: Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    recipe_name: str = "",
    environ: Mapping[str, str] | None = None,
) -> Resolved:
    """Layer the sources and check the result.

    Args:
        flags: values from the command line; None means not given.
        project: folder whose forge.yaml counts (default: the current one).

    Raises:
        UsageError: an unknown key (with the nearest name) or a value out of range.
    """
    values: dict[str, Any] = {}
    origins = {name: "default" for name in Settings.model_fields}

    def layer(source: Mapping[str, Any], origin: str) -> None:
        for key, value in source.items():
            if key not in Settings.model_fields:
                raise _unknown(key, origin)
            values[key], origins[key] = value, origin

    if recipe:
        layer(recipe, f"recipe {recipe_name}")
    for file in (user_file(), (project or Path.cwd()) / "forge.yaml"):
        for key, (value, line) in read_yaml(file).items():
            layer({key: value}, f"{file}:{line}")
    for key, text in sorted((environ if environ is not None else os.environ).items()):
        name = key.removeprefix("FORGE_").lower()
        # FORGE_TEST_… are the tests' own, unless a setting is called so.
        known = name in Settings.model_fields or "_TEST_" not in key
        if key.startswith("FORGE_") and key not in _ENV_NOT_SETTINGS and known:
            layer({name: yaml.safe_load(text)}, f"environment {key}")
    layer({k: v for k, v in flags.items() if v is not None and v != []}, "flag")
    return Resolved(checked(values, origins), origins)


def checked(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    """The settings with these values.

    Args:
        origins: where each value that may be wrong comes from.

    Raises:
        UsageError: a value is not allowed; it is named with its origin.
    """
    try:
        return Settings(**values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = str(fault["loc"][0])
        raise UsageError(
            f"{origins[key]}: {key}: {fault['msg']}, not {fault['input']!r}",
            f"{key} is: {Settings.model_fields[key].description}",
        ) from None


def parse_duration(text: str) -> float:
    """Seconds of "90s", "45m", "2h" or "1h30m".

    Raises:
        UsageError: it is no such thing, or nothing at all.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    parts = [int(part or 0) for part in found.groups()] if found else []
    if not found or not any(parts):
        raise UsageError(f"budget {text!r}: not a duration", "write for example 45m, 2h or 1h30m")
    return parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]


def _unknown(key: str, origin: str) -> UsageError:
    near = difflib.get_close_matches(key, Settings.model_fields, n=1)
    hint = f"did you mean {near[0]}?" if near else "see: forge config show"
    return UsageError(f"{origin}: unknown setting {key}", hint)
