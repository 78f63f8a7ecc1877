"""Gates: lines that must hold of what was measured, such as `raft.answer_f1.low > 0`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from forge_cli.core.errors import UsageError

_HINT = (
    "write SUITE.METRIC.FIELD > NUMBER (base, tuned, difference, low, high, p_corrected, n), "
    "SUITE.METRIC is better, SUITE.METRIC is not worse, or verdict is better"
)
_NUMBER = re.compile(r"^(?P<name>\S+)\.(?P<field>\w+)\s*(?P<op>>=|<=|>|<)\s*(?P<value>[-+.\de]+)$")
_WORD = re.compile(r"^(?P<name>\S+)\s+is\s+(?P<no>not\s+)?(?P<word>[a-z ]+)$")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip


def read_gates(given: Sequence[str]) -> list[str]:
    """Gates given as lines, or as YAML files that are a list of lines.

    Raises:
        UsageError: a file is not such a list, or a line cannot be read.
    """
    lines: list[str] = []
    for text in given:
        if not text.endswith((".yaml", ".yml")):
            lines.append(text)
            continue
        try:
            found = yaml.safe_load(Path(text).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"{text}: not a file of gates: {reason}", _HINT) from None
        if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
            raise UsageError(f"{text}: not a list of gates", _HINT)
        lines += found
    for line in lines:
        if not (_NUMBER.match(line.strip()) or _WORD.match(line.strip())):
            raise UsageError(f"gate {line!r}: cannot be read", _HINT)
    return lines


def failing(
    gates: Sequence[str], metrics: Mapping[str, Mapping[str, Any]], verdict: str
) -> list[str]:
    """The gates that do not hold, each with what was found.

    Args:
        metrics: suite → metric → comparison, as in a `run` record.
        verdict: the overall one.

    A gate on something that was not measured does not hold.
    """
    return [f"{gate}: {why}" for gate in gates if (why := _why_not(gate.strip(), metrics, verdict))]


def _why_not(gate: str, metrics: Mapping[str, Mapping[str, Any]], verdict: str) -> str:
    if match := _NUMBER.match(gate):
        found = _find(metrics, match["name"])
        value = found.get(match["field"]) if found else None
        if not isinstance(value, int | float):
            return "not measured"
        holds = _COMPARE[match["op"]](value, float(match["value"]))
        return "" if holds else f"it is {value:.4g}"
    match = _WORD.match(gate)
    assert match is not None
    if match["name"] == "verdict":
        said: str | None = verdict
    else:
        found = _find(metrics, match["name"])
        said = found.get("verdict") if found else None
    if said is None:
        return "not measured"
    # Too few samples show neither that it is better nor that it is not worse.
    unknown = said == "not enough samples" and match["word"] != said
    holds = not unknown and (said == match["word"]) != bool(match["no"])
    return "" if holds else f"it is {said}"


def _find(metrics: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    suite, _, metric = name.rpartition(".")
    return metrics.get(suite, {}).get(metric)
