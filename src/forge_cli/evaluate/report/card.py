"""model-card.md: a README for whoever is handed the model, in the hub's form.

https://huggingface.co/docs/hub/model-cards: YAML between dashes, then Markdown. It names the
repository, not the path of it, and holds no line of its code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from forge_cli.core.jsonl import atomic_file
from forge_cli.evaluate.pairing import Pair
from forge_cli.evaluate.report.names import CONDITION_NAMES
from forge_cli.evaluate.statistics.verdict import Verdict

SAYS = {
    "better": "Better than its base on files that it was not trained on.",
    "worse": "Worse than its base on files that it was not trained on. Do not use it.",
    "broke something": "It gained something and lost something else; see below before using it.",
    "no difference shown": "No difference from its base was shown on held-out files.",
    "not enough samples": "There were too few held-out files to say whether it is better.",
}


@dataclass(frozen=True)
class Card:
    """What a card tells beside the measurements.

    Attributes:
        base: the model that it was trained from. licence: its licence ("": not known).
        repository: its name.
        how: name → value: init, rank, bits, steps …
        kinds: question kind → training rows.
    """

    base: str
    licence: str
    repository: str
    how: Mapping[str, str]
    kinds: Mapping[str, int]


def write_card(path: Path, card: Card, pairs: Sequence[Pair], verdict: Verdict) -> Path:
    """Write the card of the tuned model; the path."""
    with atomic_file(path) as stream:
        stream.write(render_card(card, pairs, verdict).encode())
    return path


def render_card(card: Card, pairs: Sequence[Pair], verdict: Verdict) -> str:
    """The text of a card."""
    head: dict[str, object] = {
        "license": card.licence.lower() or "other",
        "library_name": "mlx",
        "pipeline_tag": "text-generation",
        "tags": ["forge", "raft", "code", "lora"],
    }
    if card.base.count("/") == 1 and not Path(card.base).exists():
        head["base_model"] = card.base
    lines = ["---", yaml.safe_dump(head, sort_keys=False).rstrip(), "---", ""]
    lines += [f"# {card.base}, tuned on {card.repository}", "", SAYS[verdict.outcome], ""]
    lines += [f"- {reason}" for reason in verdict.reasons]
    lines += _measured(pairs)
    lines += ["", "## How it was made", ""]
    lines += [f"- {name}: {value}" for name, value in card.how.items()]
    told = Counter(card.kinds).most_common()
    lines += [f"- {sum(card.kinds.values())} training rows: "
              + ", ".join(f"{kind} {count}" for kind, count in told)]  # fmt: skip
    lines += ["", "## What to know before using it", "", *limits(card)]
    return "\n".join(lines) + "\n"


def _measured(pairs: Sequence[Pair]) -> list[str]:
    tuned = [pair for pair in pairs if pair.side == "tuned"]
    lines = []
    for reference in dict.fromkeys(pair.reference for pair in tuned):
        lines += ["", f"## Against {reference}", ""]
        lines += ["| asked | metric | from → to | 95 % interval of the difference | verdict |"]
        lines += ["|---|---|---|---|---|"]
        for pair in tuned:
            if pair.reference == reference:
                c = pair.found
                lines.append(
                    f"| {CONDITION_NAMES[pair.condition]} | {pair.metric.replace('_', ' ')} | "
                    f"{c.base:.3f} → {c.tuned:.3f} | [{c.low:+.3f}, {c.high:+.3f}] | "
                    f"{c.verdict} ({c.n} rows, {c.clusters} files) |"
                )
    return lines


def limits(card: Card) -> list[str]:
    """What to know before using a model, as lines of a list."""
    return [
        f"- It was trained on questions about {card.repository}; of other code it knows what its "
        "base knows.",
        "- It is meant to be asked with documents in its prompt, in the form that it was trained "
        "in; without them it makes things up.",
        "- What it learned of the code may be told by whoever asks it: hand it on as you would "
        "the repository.",
        "- The data's answers were made by rules from the code; a quote that it gives should be "
        "looked up.",
    ]
