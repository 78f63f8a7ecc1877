"""How much memory a training will take, from shapes alone.

What is held is counted array by array for the ordinary path of a block: inputs of its two
norms and of its linear layers, queries and keys before and after RoPE, values, the attention's
output twice (as heads and as rows), and gate, silu(gate), up and their product. MLX begins with
about a dozen operations ahead of the one that runs, so the largest temporaries count so often.
`benchmarks/train_memory.py` holds this against measured peaks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forge_cli.models.attention import block_bytes
from forge_cli.models.backend import on_gpu
from forge_cli.models.head_loss import held_bytes
from forge_cli.models.shapes import Shapes
from forge_cli.models.shared_context import Group
from forge_cli.models.targets import block_of, choose_modules, ranks_of

# Operations that MLX has begun with on the CPU, and whose results it therefore holds.
_AHEAD = 12
# Arrays as large as the adapters, in float32: what the optimiser keeps.
_STATES = {"adamw": 2.0, "lion": 1.0, "muon": 1.0, "adafactor": 0.1}
# The parts of a plan that stay from step to step.
HELD = ("weights", "adapters", "gradients", "optimiser")


@dataclass(frozen=True)
class Load:
    """The largest pass through the model.

    Attributes:
        prefix: tokens of the context that the rows share (0: nothing is shared).
        rows: in the pass. length: tokens of the longest behind the prefix.
        tokens: of all behind the prefix, padding included.
        supervised: tokens that carry loss, over all rows.
        whole: whether its rows must run together, as those of a pair.
    """

    prefix: int
    rows: int
    length: int
    tokens: int
    supervised: int
    whole: bool = False

    @property
    def alone(self) -> Load:
        """One of its rows behind the context: what a pass can be cut down to."""
        if self.whole:
            return self
        supervised = math.ceil(self.supervised / self.rows)
        # One row shares with nobody: all its tokens are its own.
        length = self.prefix + self.length
        return Load(0, 1, length, length, supervised)


def load_of(group: Group, *, whole: bool = False) -> Load:
    """What a group of rows puts through the model."""
    prefix, rows = int(group.prefix.shape[1]), 1 if group.packed else len(group.of)
    length = max(len(row.ids) - 1 for row in group.of) - prefix
    tokens = sum(branch.size for branch in group.branches)
    return Load(prefix, rows, length, tokens, int(group.targets.size), whole)


def fullest_load(max_tokens: int, rows: int) -> Load:
    """A context of `rows` questions that fills `max_tokens`, for a plan without data."""
    length = min(160, max_tokens // 2)
    return Load(max_tokens - length, rows, length, rows * length, rows * length // 2)


@dataclass(frozen=True)
class Training:
    """What is trained how, as far as memory depends on it; the names are the settings'."""

    rank: int = 16
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    layers: int | str = 16
    bits: int = 4
    group_size: int = 64
    init: str = "qpissa"
    optimiser: str = "adamw"
    dora: bool = False
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Plan:
    """Bytes at the fullest moment of a step, by what they are for, and at the start.

    Attributes:
        parts: held at that moment; their sum is its peak.
        start: peak while the model is loaded and the adapters are initialised.
    """

    parts: dict[str, int]
    start: int

    @property
    def passing(self) -> int:
        """What a pass through the model takes: what a measured step corrects."""
        return sum(size for name, size in self.parts.items() if name not in HELD)

    @property
    def step(self) -> int:
        """Peak of a step."""
        return sum(self.parts.values())

    @property
    def peak(self) -> int:
        """The larger of the two."""
        return max(self.start, self.step)


def plan_memory(
    shapes: Shapes, how: Training, load: Load, *, scale: float = 1.0, gpu: bool | None = None
) -> Plan:
    """The peak of training.

    Args:
        scale: of what a pass through the model takes: measured over predicted, from a run
            before (1: not measured).
        gpu: whether MLX computes on one (None: as it does here).
    """
    gpu = on_gpu() if gpu is None else gpu
    modules = choose_modules(shapes.names, shapes.layers, how.targets, how.layers)
    ranks = ranks_of(modules, how.rank, how.rank_pattern)
    adapters = 4 * sum(rank * sum(shapes.shape(name)) for name, rank in ranks.items())
    # With A₀, B₀ where they were taken out of W.
    kept = adapters * (2 if how.init in ("pissa", "qpissa") else 1)
    sizes = (_weights(shapes, how, gpu), kept, adapters, int(adapters * _STATES[how.optimiser]))
    held = dict(zip(HELD, sizes, strict=True))
    passes = _activations(shapes, how, modules, load, gpu)
    parts = held | {name: int(size * scale) for name, size in passes.items()}
    return Plan(parts, _start(shapes, how, adapters, gpu))


def _weights(shapes: Shapes, how: Training, gpu: bool) -> int:
    if not gpu:
        return shapes.parameters * 4  # dense, whatever the bits: see models/quantise.py
    if how.bits == 16:
        return shapes.parameters * 2
    offsets = 32 / how.group_size  # a scale and an offset of 16 bits for each group
    return int(shapes.parameters * (how.bits + offsets) / 8)


def _start(shapes: Shapes, how: Training, adapters: int, gpu: bool) -> int:
    """While layers are read, started and quantised one by one: copies of the largest in float32,
    for the SVD and the quantiser, beside what is held already."""
    largest = max(out * into for out, into in shapes.linears.values())
    table = shapes.vocabulary * shapes.hidden
    return _weights(shapes, how, gpu) + 2 * adapters + max(16 * largest, 8 * table)


def _activations(
    shapes: Shapes, how: Training, modules: Sequence[str], load: Load, gpu: bool
) -> dict[str, int]:
    """Bytes of the fullest moment of a pass: at its end, or in one block."""
    size = 2 if gpu else 4
    first = min((block_of(name) for name in modules if block_of(name) >= 0), default=0)
    deep = shapes.layers - first  # blocks that are gone through backwards
    ends = {name.rsplit(".", 1)[-1] for name in modules}
    token = _token_floats(shapes, ends, gpu)
    if how.dora or how.init == "dora":  # the output before its magnitude
        token += sum(out for name, (out, _) in shapes.linears.items() if name.split(".")[1] in ends)
    tokens = load.tokens
    kv = 2 * shapes.kv_heads * shapes.head_dim
    # Of the last block the context gives keys and values only.
    context = load.prefix * (token * (deep - 1) + kv + 2 * shapes.hidden)
    copies = (load.rows * load.prefix + tokens) * kv if load.prefix else 0
    # Metal's fused attention does not train: MLX keeps the probabilities there. (Not measured.)
    pairs = load.prefix**2 + tokens * (load.prefix + load.length)
    copies += shapes.heads * pairs if gpu else 0
    if how.gradient_checkpointing:
        context = load.prefix * (shapes.hidden + kv) * deep
        kept = context + tokens * shapes.hidden * deep
        # One block's arrays, some of their gradients, and those of the context's keys and values.
        again = max(load.prefix, tokens) * token * 3 // 2 + 2 * copies + load.prefix * kv * deep
    else:
        kept, again = context + tokens * token * deep + copies * deep, 0
    total = load.prefix + load.length
    # The largest arrays of a block: the MLP's inner state, or an attention's scores, of which
    # half are computed in place.
    scores = block_bytes(load.rows, shapes.heads, load.length, total)
    scores = max(scores, block_bytes(1, shapes.heads, load.prefix, load.prefix or 1))
    widest = max(scores // 2, size * max(load.prefix, tokens) * shapes.intermediate)
    # Before the rows begin, all blocks' keys and values of the context are held.
    middle = size * (context + first * load.prefix * kv) - size * kept
    moments = {
        "head": held_bytes(load.supervised, shapes.vocabulary, _AHEAD),
        "one block": size * again + _AHEAD * widest,
        "the context's keys and values": middle + _AHEAD * widest,
    }
    fullest = max(moments, key=lambda name: moments[name])
    return {"activations": size * kept, fullest: moments[fullest]}


def _token_floats(shapes: Shapes, ends: set[str], gpu: bool) -> int:
    """Numbers that a block keeps of a token for the way back.

    Args:
        ends: last parts of the names of the layers with adapters: these keep their inputs.
    """
    q, kv = shapes.heads * shapes.head_dim, shapes.kv_heads * shapes.head_dim
    count = 2 * shapes.hidden  # inputs of the norms
    count += 3 * q + 3 * kv  # before and after RoPE, values, output
    # On the CPU SwiGLU keeps its two inputs alone (`cpu_math.swiglu`); compiled, not measured.
    count += (3 if gpu else 2) * shapes.intermediate
    if ends & {"q_proj", "k_proj", "v_proj"}:
        count += shapes.hidden
    if "o_proj" in ends:
        count += q
    if ends & {"gate_proj", "up_proj"}:
        count += shapes.hidden
    if "down_proj" in ends:
        count += shapes.intermediate
    return count
