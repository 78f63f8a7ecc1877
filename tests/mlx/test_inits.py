"""The inits against their papers' definitions, the cache, ranks and targets, DoRA's gradient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forge_cli.core.errors import UsageError
from forge_cli.models.adapters import AdapterConfig, LoRALinear, get_module, lora_scale
from forge_cli.models.backend import mx, nn
from forge_cli.models.load import load_base, load_dense
from forge_cli.models.lora import row_norms, without_start
from forge_cli.models.quantise import (
    check_quantiser,
    dense_weight,
    logical_shape,
    quantise_model,
    round_trip,
)
from forge_cli.models.targets import chosen_layers, ranks_of, target_modules
from forge_cli.train.initial import StartSettings, start_adapters
from forge_cli.train.inits import Start
from forge_cli.train.inits.loftq import loftq_start
from forge_cli.train.inits.pissa import pissa_start, qpissa_start
from forge_cli.train.inits.svd import principal_part
from tiny_train import logits, random_model, save_model

IDS = list(range(5, 40))
FOUR: dict[str, Any] = {"bits": 4, "group_size": 64, "mode": "affine"}


def quantise(weight: mx.array) -> mx.array:
    return round_trip(weight, **FOUR)


def realistic(out: int = 192, width: int = 256, seed: int = 0) -> mx.array:
    """Singular values fall as 1/√i, as in a trained model: a few directions hold much."""
    rng = np.random.default_rng(seed)
    U, S, Vt = np.linalg.svd(rng.standard_normal((out, width)), full_matrices=False)
    return mx.array((U * np.arange(1, len(S) + 1) ** -0.5 @ Vt).astype(np.float32))


def norms(matrix: mx.array) -> np.ndarray:
    """Nuclear and Frobenius norm."""
    S = np.linalg.svd(np.array(matrix), compute_uv=False)
    return np.array([S.sum(), np.sqrt((S**2).sum())])


def error(W: mx.array, start: Start, scale: float) -> np.ndarray:
    Q = quantise(without_start(W, start.A0, start.B0, scale))
    return norms(W - Q - scale * (start.B @ start.A))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_start_is_nearer_to_w_in_the_papers_order(scale: float) -> None:
    W, how = realistic(), {"rank": 32, "scale": scale}
    plain = norms(W - quantise(W))
    loftq = error(W, loftq_start(W, quantise=quantise, alternations=5, **how), scale)
    one = error(W, pissa_start(W, **how), scale)
    five = error(W, qpissa_start(W, quantise=quantise, alternations=5, **how), scale)
    assert (loftq < 0.95 * plain).all(), (plain, loftq)
    assert (five < loftq).all(), (loftq, five)
    assert (five < 0.97 * one).all(), (one, five)


@pytest.mark.parametrize("T", [0, 1])
def test_qpissa_without_a_second_round_is_pissa(T: int) -> None:
    W, how = realistic(), {"rank": 8, "scale": 1.0}
    found, plain = qpissa_start(W, quantise=quantise, alternations=T, **how), pissa_start(W, **how)
    assert mx.array_equal(found.A, plain.A) and mx.array_equal(found.B, plain.B)


def test_the_rounds_are_those_of_the_papers() -> None:
    """Both algorithms written out again: the base is the Q of the last round, bit for bit."""
    W, s, T = realistic(), 2.0, 3
    residual = W
    for _ in range(T):
        A, B = principal_part(residual, rank=8, scale=s)
        Q = quantise(W - s * (B @ A))
        residual = W - Q
    found = qpissa_start(W, rank=8, scale=s, quantise=quantise, alternations=T)
    assert mx.array_equal(found.A, A) and mx.array_equal(found.B, B)
    assert mx.array_equal(quantise(without_start(W, found.A0, found.B0, s)), Q)
    A, B = mx.zeros((8, 256)), mx.zeros((192, 8))
    for _ in range(T):
        Q = quantise(W - s * (B @ A))
        A, B = principal_part(W - Q, rank=8, scale=s)
    found = loftq_start(W, rank=8, scale=s, quantise=quantise, alternations=T)
    assert mx.array_equal(found.A, A) and mx.array_equal(found.B, B)
    assert mx.array_equal(quantise(without_start(W, found.A0, found.B0, s)), Q)
    assert loftq_start(W, rank=8, scale=s, quantise=quantise, alternations=1).A0 is None


def config(init: str = "pissa", **changes: Any) -> AdapterConfig:
    values = {"rank": 4, "alpha": 4.0, "bits": 4, "group_size": 64, **changes}
    return AdapterConfig(model="tiny", init=init, modules=[], **values)


def attached(init: str, **changes: Any) -> tuple[nn.Module, AdapterConfig]:
    settings = changes.pop("settings", StartSettings())
    model = random_model("llama")
    found, _ = start_adapters(
        model, config(init, **changes), targets=["q_proj", "down_proj"], layers=0,
        settings=settings,
    )  # fmt: skip
    return model, found


def test_step_0_is_nearest_to_the_model_with_qpissa() -> None:
    plain = random_model("llama")
    apart: dict[str, float] = {}
    for init in ("lora", "loftq", "qpissa"):
        model, found = attached(init, rank=32, alpha=32.0)
        apart[init] = sum(
            float(norms(get_module(model, n).merged() - get_module(plain, n).weight)[1])
            for n in found.modules
        )
    assert apart["qpissa"] < apart["loftq"] < apart["lora"]


def test_inits_that_do_not_go_with_the_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="bits 16 loses nothing"):
        attached("loftq", bits=16)
    with pytest.raises(UsageError, match="needs alternations of 1"):
        attached("loftq", settings=StartSettings(alternations=0))


def test_what_does_not_fill_groups_is_not_quantised_and_can_still_train() -> None:
    """Rows of 192 do not fill groups of 128: LoftQ would start there with A = B = 0."""
    model, _ = attached("loftq", group_size=128)
    layer = get_module(model, "model.layers.0.mlp.down_proj")
    assert mx.abs(layer.A).max().item() > 0


def test_starts_come_from_the_cache(tmp_path: Path) -> None:
    settings = StartSettings(cache=tmp_path)
    notes: list[str] = []
    first, found = attached("loftq", settings=settings)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(files) == len(found.modules)
    again, _ = attached("loftq", settings=settings)
    for name in found.modules:
        one, two = get_module(first, name), get_module(again, name)
        assert mx.array_equal(one.A, two.A) and mx.array_equal(one.base.weight, two.base.weight)
    # Files that hold something else, soundly written, show that they are what is read.
    from forge_cli.train.inits.cache import StartCache

    W, cache = realistic(8, 64), StartCache(tmp_path / "own")
    marked = Start(mx.ones((2, 64)), mx.ones((8, 2)))
    cache.get(W, lambda: marked, rank=2)
    read = cache.get(W, lambda: pytest.fail("computed again"), rank=2)
    assert mx.array_equal(read.A, marked.A) and read.A0 is None and cache.hits == 1
    for changed, what in ((W + 1e-6, {"rank": 2}), (W, {"rank": 2, "bits": 3})):
        notes.clear()
        cache.get(changed, lambda: notes.append("computed") or marked, **what)
        assert notes == ["computed"]


@pytest.mark.parametrize("damage", ["cut", "one bit", "not a safetensors file"])
def test_a_damaged_cache_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    settings = StartSettings(cache=tmp_path)
    first, found = attached("qpissa", settings=settings)
    sound = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for file, content in sound.items():
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        broken = {"cut": content[:-50], "one bit": flipped}.get(damage, b"nothing")
        file.write_bytes(broken)
    again, _ = attached("qpissa", settings=settings)
    for name in found.modules:
        assert mx.array_equal(get_module(first, name).A, get_module(again, name).A)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == sound


def test_the_cache_keeps_to_its_limit(tmp_path: Path) -> None:
    import os

    from forge_cli.train.inits.cache import StartCache

    cache = StartCache(tmp_path, limit=40_000)
    start = Start(mx.ones((64, 64)), mx.ones((64, 64)))  # 33 kB
    for age, rank in enumerate((1, 2, 3)):
        before = set(tmp_path.iterdir())
        cache.get(mx.ones((64, 64)), lambda: start, rank=rank)
        (new,) = set(tmp_path.iterdir()) - before
        os.utime(new, (age, age))
    cache.trim()
    assert list(tmp_path.iterdir()) == [new], "the one used last stays"


def test_exact_svd_is_exact() -> None:
    W = realistic(576, 640)
    exact = mx.array(np.linalg.svd(np.array(W))[1][8:])
    best = float(mx.sqrt(mx.square(exact).sum()).item())
    for iterations, worst in ((None, 1 + 1e-5), (0, 2.0)):
        A, B = principal_part(W, rank=8, scale=1.0, iterations=iterations)
        ratio = norms(W - B @ A)[1] / best
        assert ratio < worst
    assert ratio > 1.001, "no iteration is visibly worse: the setting reaches the SVD"


@pytest.mark.parametrize(
    "how",
    [{"bits": b, "group_size": g} for b, g in ((2, 32), (3, 64), (6, 128), (8, 32))]
    + [{"bits": 4, "group_size": 32, "mode": "mxfp4"}],
    ids=str,
)
def test_each_quantiser_serves_what_mlxs_layers_hold(how: dict[str, Any]) -> None:
    check_quantiser(**how)
    ours, theirs = random_model("llama"), random_model("llama")
    quantise_model(ours, **how)
    fills = 128 % how["group_size"]  # rows of 192 do not fill groups of 128
    nn.quantize(theirs, **how, class_predicate=lambda _, m: hasattr(m, "to_quantized")
                and m.weight.shape[1] % how["group_size"] == fills)  # fmt: skip
    for path in ("model.embed_tokens", "model.layers.0.self_attn.q_proj"):
        packed, dense = get_module(theirs, path), get_module(ours, path)
        assert mx.array_equal(dense_weight(dense), dense_weight(packed))
        assert logical_shape(packed) == logical_shape(dense)
        assert not mx.array_equal(dense.weight, get_module(random_model("llama"), path).weight)
        assert dense.weight.dtype == mx.float32


def test_more_bits_lose_less_and_unknown_ones_are_refused() -> None:
    W = realistic()
    lost = [norms(W - round_trip(W, bits=b, group_size=64))[1] for b in (2, 3, 4, 6, 8)]
    assert lost == sorted(lost, reverse=True)
    for how, what in (
        ({"bits": 5, "group_size": 64}, "bits 5"),
        ({"bits": 4, "group_size": 16}, "group_size 16"),
        ({"bits": 3, "group_size": 32, "mode": "mxfp4"}, "bits 3"),
        ({"bits": 4, "group_size": 64, "mode": "mxfp4"}, "group_size 64"),
        ({"bits": 4, "group_size": 64, "mode": "nf4"}, "quant_mode nf4"),
    ):
        with pytest.raises(UsageError, match=what):
            check_quantiser(**how)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, np.ndarray]:
    """A 4-bit checkpoint with float32 scales, and its own logits."""
    from mlx_lm.utils import save_config
    from mlx_lm.utils import save_model as save_weights

    root = tmp_path_factory.mktemp("packed")
    loaded = load_dense(str(save_model(root / "plain")))
    nn.quantize(loaded.model, group_size=64, bits=4)
    folder = save_model(root / "packed")
    (folder / "model.safetensors").unlink()
    save_weights(folder, loaded.model)
    quantization = {"group_size": 64, "bits": 4}
    save_config({**loaded.config, "quantization": quantization}, folder / "config.json")
    return str(folder), logits(loaded.model, IDS)


def test_a_base_that_is_quantised_keeps_its_values(packed: tuple[str, np.ndarray]) -> None:
    name, own = packed
    largest = np.abs(own).max()
    apart = {}
    for init in ("lora", "pissa"):
        loaded = load_dense(name)
        found = config(init)
        start_adapters(
            loaded.model, found, targets=["q_proj", "up_proj"], layers=0,
            stored=loaded.stored_as(found.quantiser),
        )  # fmt: skip
        apart[init] = np.abs(logits(loaded.model, IDS) - own).max() / largest
    assert apart["lora"] < 1e-4 < 1e-3 < apart["pissa"]
    base = load_base(name, bits=4, group_size=64)
    assert np.abs(logits(base.model, IDS) - own).max() < 1e-4 * largest
    # Asked for in another way, it is quantised again.
    other = load_base(name, bits=3, group_size=64)
    assert np.abs(logits(other.model, IDS) - own).max() > 1e-3 * largest


def test_on_a_gpu_the_stored_layers_themselves_are_kept(
    packed: tuple[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_cli.models import quantise as module

    loaded = load_dense(packed[0])
    monkeypatch.setattr(module, "on_gpu", lambda: True)
    path = "model.layers.0.self_attn.q_proj"
    kept = {k: v for k, v in loaded.stored.items() if k != path}
    quantise_model(loaded.model, **FOUR, stored=kept)
    assert get_module(loaded.model, "model.embed_tokens") is loaded.stored["model.embed_tokens"]
    again = get_module(loaded.model, path)
    assert isinstance(again, nn.QuantizedLinear) and again is not loaded.stored[path]


def dora_layer(bias: bool) -> tuple[LoRALinear, mx.array]:
    rng = np.random.default_rng(0)
    base = nn.Linear(12, 8, bias=bias)
    base.weight = mx.array(rng.standard_normal((8, 12)).astype(np.float32))
    A, B, m, x = (
        mx.array(rng.standard_normal(shape).astype(np.float32))
        for shape in ((3, 12), (8, 3), (8,), (5, 12))
    )
    return LoRALinear(base, A, B, 0.5, mx.abs(m) + 1), x


@pytest.mark.parametrize("bias", [True, False])
def test_dora_is_the_formula_of_its_paper(bias: bool) -> None:
    """Forward and gradients against NumPy; ‖V‖ is a constant to the gradient."""
    layer, x = dora_layer(bias)
    A, B, m, W, X = (np.array(v, np.float64) for v in (layer.A, layer.B, layer.m,
                                                       layer.base.weight, x))  # fmt: skip
    b = np.array(layer.base.bias, np.float64) if bias else 0.0
    V = W + 0.5 * B @ A
    c = np.linalg.norm(V, axis=1)
    Y = m / c * (X @ V.T) + b
    assert np.allclose(np.array(layer(x)), Y, atol=1e-4)
    assert np.allclose(np.array(row_norms(layer)), c, atol=1e-4)
    assert np.allclose(np.array(x @ layer.merged().T), Y - b, atol=1e-4)
    layer.base.freeze()
    _, found = nn.value_and_grad(layer, lambda net: mx.square(net(x)).sum())(layer)
    G = 2 * Y  # d loss / d Y
    dV = (G * (m / c)).T @ X
    wanted = {"A": 0.5 * B.T @ dV, "B": 0.5 * dV @ A.T, "m": (G * (X @ V.T) / c).sum(axis=0)}
    assert set(found) - {"base"} == set(wanted)
    for name, value in wanted.items():
        assert np.allclose(np.array(found[name]), value, rtol=1e-4, atol=1e-3), name


@pytest.mark.parametrize("init", ["lora", "pissa", "qpissa", "loftq"])
def test_dora_changes_nothing_before_the_first_step(init: str) -> None:
    with_m, _ = attached(init, dora=True)
    without, _ = attached(init)
    apart = np.abs(logits(with_m, IDS) - logits(without, IDS)).max()
    assert apart < 1e-3 * np.abs(logits(without, IDS)).max()
    layer = get_module(with_m, "model.layers.0.self_attn.q_proj")
    layer.m = layer.m * 2
    assert np.abs(logits(with_m, IDS) - logits(without, IDS)).max() > 10 * apart


def test_a_settled_layer_computes_the_same() -> None:
    layer, x = dora_layer(True)
    before = layer(x)
    layer.settle()
    assert mx.array_equal(layer(x), before)
    layer.A = layer.A * 3  # shows that the norm is not computed again
    settled = layer(x)
    layer._norm = None
    assert not mx.allclose(settled, layer(x)).item()


def test_scales() -> None:
    assert lora_scale(16.0, 64, rslora=False) == 0.25
    assert lora_scale(16.0, 64, rslora=True) == 2.0
    model, found = attached("lora", rank=16, alpha=8.0, rslora=True)
    assert get_module(model, found.modules[0]).scale == 2.0


def test_ranks_by_pattern() -> None:
    model = random_model("llama")
    pattern = {"model.layers.0.*": 2, "down_proj": 8}
    found, initial = start_adapters(
        model, config(), targets=["q_proj", "down_proj"], layers="all", rank_pattern=pattern
    )
    ranks = {name: get_module(model, name).A.shape[0] for name in found.modules}
    assert {name[13:]: rank for name, rank in ranks.items()} == {
        "0.mlp.down_proj": 2, "0.self_attn.q_proj": 2, "1.mlp.down_proj": 8,
        "1.self_attn.q_proj": 4, "2.mlp.down_proj": 8, "2.self_attn.q_proj": 4,
    }  # fmt: skip
    assert json.loads(json.dumps(found.ranks)) == {n: r for n, r in ranks.items() if r != 4}
    assert {get_module(model, name).scale for name in ranks} == {1.0}, "alpha = rank everywhere"
    assert all(initial[f"{name}.A"].shape[0] == rank for name, rank in ranks.items())
    chosen = random_model("llama")
    start_adapters(chosen, config(alpha=8.0), targets=["q_proj"], layers=0,
                   rank_pattern={"*.1.*": 2})  # fmt: skip
    scales = [get_module(chosen, f"model.layers.{i}.self_attn.q_proj").scale for i in (0, 1)]
    assert scales == [2.0, 4.0], "alpha is one, as in PEFT"
    with pytest.raises(UsageError, match="rank_pattern k_proj: means none"):
        ranks_of(found.modules, 4, {"k_proj": 2})


def test_layers_by_range() -> None:
    cases: dict[int | str, set[int]] = {
        16: set(range(8, 24)), "last 16": set(range(8, 24)), "8-23": set(range(8, 24)), 99:
        set(range(24)), 0: set(range(24)), "all": set(range(24)), "first 2": {0, 1},
        "0-1, 22-23": {0, 1, 22, 23},
    }  # fmt: skip
    for spec, wanted in cases.items():
        assert chosen_layers(spec, 24) == wanted, spec
    for wrong in ("8-24", "9-3", "some", "3"):
        with pytest.raises(UsageError, match="layers"):
            chosen_layers(wrong, 24)


def test_targets_by_glob() -> None:
    model = random_model("llama")
    attention = target_modules(model, ["*.self_attn.[qk]_proj"], "1-1")
    assert attention == [f"model.layers.1.self_attn.{k}_proj" for k in "kq"]
    everything = target_modules(model, ["*"], "all")
    assert len(everything) == 3 * 7 and "lm_head" not in everything
    assert "lm_head" in target_modules(model, ["*", "lm_head"], "all")
    assert target_modules(model, ["model.layers.2.mlp.up_proj"], 0) == [
        "model.layers.2.mlp.up_proj"
    ]
    with pytest.raises(UsageError, match="none of them in layers 0-1"):
        target_modules(model, ["model.layers.2.mlp.up_proj"], "0-1")
