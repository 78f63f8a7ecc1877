"""The quality gates: what a new model must show on held-out code before it is deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forge_cli.core.run_dir import RunDir
from forge_cli.evaluate.gates import failing, read_gates
from forge_cli.guard.config import QualityGates
from forge_cli.guard.drift.measure import LEAST
from forge_cli.guard.records import Drift, Gate

Comparison = Mapping[str, Mapping[str, Mapping[str, Any]]]
_UNKNOWN = "not enough samples"
# What "not worse on old code" looks at, beside the loss, which has a bound of its own.
_OLD = ("answer_f1", "quote_correct")
_OTHER = {"new": "old", "old": "new"}
_LOWER_IS_BETTER = {"answer_loss", "token_seconds", "first_token_seconds"}


def hold(gates: QualityGates, run: RunDir, comparison: Comparison) -> list[Gate]:
    """Each gate that is set, and whether the run passes it.

    Args:
        comparison: "new" and "old" (and "latency") → metric → comparison of the deployed model
            (`base`) with the run's (`tuned`), as `pipeline.update` records it. A first model is
            compared with its base model, and there is no "old".

    Raises:
        UsageError: a rule of `gates.rules` cannot be read.
    """
    found = [_examples(gates, run), _quotes(gates, comparison)]
    found.append(_side("new", gates.new, gates, comparison, ("answer_loss",)))
    if "old" in comparison:
        found.append(_side("old", gates.old, gates, comparison, _OLD))
        found.append(_forgetting(gates, comparison))
    found.append(_latency(gates, comparison))
    verdict = str(run.state["metrics"].get("verdict", {}).get("outcome", ""))
    for rule in read_gates(gates.rules):
        lost = failing([rule], comparison, verdict)
        found.append(Gate(name="rule", passed=not lost, text=lost[0] if lost else f"{rule}: holds"))
    return [gate for gate in found if gate]


def sound(gates: QualityGates, drift: Drift) -> Gate | None:
    """The gate that needs no model: nothing of what changed looks broken."""
    if not gates.sources:
        return None
    text = "; ".join(drift.suspicious) or "nothing of what changed looks broken"
    return Gate(name="sources", passed=not drift.suspicious, text=text)


def parity(run: RunDir) -> Gate:
    """The gate that the export has passed: each file that was compared, and how near it is."""
    found = run.state["metrics"].get("export", {})
    told = [
        f"{key.removeprefix('parity.')}: the likeliest token is that of the trained model at "
        f"{one['top1_agreement']:.1%} of {one['positions']} positions, mean KL {one['mean_kl']:.2g}"
        for key, one in found.items()
        if key.startswith("parity.") and "top1_agreement" in one
    ]
    return Gate(name="parity", passed=True, text="; ".join(told) or "nothing was compared")


def advice(gates: Sequence[Gate]) -> str:
    """What could help a first model that learned too little; empty where that is not the fault."""
    if any(not gate.passed and gate.name in ("quotes", "new") for gate in gates):
        return (
            "give a larger `model` or more `epochs` under the repository's `settings` in "
            "guard.yaml, then: forge guard once --force"
        )
    return ""


def _examples(gates: QualityGates, run: RunDir) -> Gate | None:
    if gates.examples is None:
        return None
    rows = int(run.state["metrics"].get("train", {}).get("rows", 0))
    passed = rows >= gates.examples
    return Gate(
        name="examples", passed=passed, text=f"trained on {rows} rows, {gates.examples} are asked"
    )


def _quotes(gates: QualityGates, comparison: Comparison) -> Gate | None:
    """Over old and new answers together, so that few of one kind do not decide."""
    if gates.quotes is None:
        return None
    own = [part["quote_correct"] for part in comparison.values() if "quote_correct" in part]
    rows = sum(one["n"] for one in own)
    if not rows:
        return Gate(name="quotes", passed=False, text="no answer was asked for: answer_rows")
    share = sum(one["tuned"] * one["n"] for one in own) / rows
    return Gate(
        name="quotes",
        passed=share >= gates.quotes,
        text=f"{share:.2f} of {rows} held-out answers quote only what the documents say, "
        f"{gates.quotes:g} is asked",
    )


def _side(
    side: str,
    wanted: str | None,
    gates: QualityGates,
    comparison: Comparison,
    metrics: tuple[str, ...],
) -> Gate | None:
    """Every metric must be as wanted; the worst one is told first."""
    if wanted is None:
        return None
    told = []
    for metric in metrics:
        name, found = _part(side, metric, gates, comparison)
        told.append(_judge(name, metric, wanted, gates, found))
    text = "; ".join(why for _, why in sorted(told, key=lambda one: one[0]))
    return Gate(name=side, passed=all(ok for ok, _ in told), text=f"{text}; asked: {wanted}")


def _part(
    side: str, metric: str, gates: QualityGates, comparison: Comparison
) -> tuple[str, Mapping[str, Any] | None]:
    """What is judged, and its name: where too few rows could lean anywhere, the other code's.

    All of it is held out: after modules were moved about little is left that is new, after all
    were formatted anew nothing that is old.
    """
    own = comparison.get(side, {}).get(metric)
    rows, other = own["n"] if own else 0, _OTHER[side]
    instead = comparison.get(other, {}).get(metric)
    if gates.unknown == "lean" and rows < LEAST and instead and instead["n"] >= LEAST:
        return f"{rows} {side} rows are too few, those of {other} code decide: {metric}", instead
    return f"{side} {metric}", own


def _judge(
    name: str, metric: str, wanted: str, gates: QualityGates, found: Mapping[str, Any] | None
) -> tuple[bool, str]:
    if not found:
        return gates.unknown == "pass", f"{name}: not measured, no such rows"
    text = f"{name} {numbers(found)}"
    verdict = str(found["verdict"])
    if verdict != _UNKNOWN:
        return (verdict == "better" if wanted == "better" else verdict != "worse"), text
    sign = -1 if metric in _LOWER_IS_BETTER else 1
    gained = sign * found["difference"]
    # Between equal models the mean falls as often as it rises, so one answer is no loss yet.
    slack = 1.000001 / max(found["n"], LEAST) if metric in _OLD else 0.0
    leans = gained > 0 if wanted == "better" else gained >= -slack
    passed = gates.unknown == "pass" or (gates.unknown == "lean" and leans)
    return passed, f"{text}, which by `unknown: {gates.unknown}` {'passes' * passed or 'fails'}"


def _forgetting(gates: QualityGates, comparison: Comparison) -> Gate | None:
    if gates.forgetting is None:
        return None
    name, found = _part("old", "answer_loss", gates, comparison)
    if not found:
        return Gate(name="forgetting", passed=False, text="loss on old code: not measured")
    # The end of the interval where there are samples for one; else the mean is all there is.
    unknown = found["verdict"] == _UNKNOWN
    risen = found["difference"] if unknown else found["high"]
    passed = risen <= gates.forgetting and (gates.unknown != "fail" or not unknown)
    return Gate(
        name="forgetting",
        passed=passed,
        text=f"{name} {numbers(found)}; it may rise by {gates.forgetting:g}",
    )


def _latency(gates: QualityGates, comparison: Comparison) -> Gate | None:
    if gates.latency is None:
        return None
    found = comparison.get("latency", {}).get("token_seconds")
    if not found or not found["base"]:
        return Gate(name="latency", passed=False, text="seconds to a token: not measured")
    ratio = found["tuned"] / found["base"]
    return Gate(
        name="latency",
        passed=ratio <= gates.latency,
        text=f"{ratio:.2f} times the deployed model's seconds a token, {gates.latency:g} is asked",
    )


def numbers(found: Mapping[str, Any]) -> str:
    """`0.910 → 0.420 (−0.490 [−0.600, −0.380], 40 rows, 12 files): better`."""
    sample = f"{found['n']} rows, {found['clusters']} files"
    if found["verdict"] == _UNKNOWN:
        return f"{found['base']:.3f} → {found['tuned']:.3f} ({sample}): {_UNKNOWN} for an interval"
    interval = f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"{found['base']:.3f} → {found['tuned']:.3f} ({interval}, {sample}): {found['verdict']}"
