"""README.md of what goes to the hub: for a stranger, and no better than what was measured.

https://huggingface.co/docs/hub/model-cards: YAML between dashes, then Markdown. It names the
repository that the model was trained on, and holds no line, path or question of it. It has no
model-index: that is for test sets which others can take again, and these are private.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from forge_cli.core.answer_form import SYSTEM


@dataclass(frozen=True)
class Piece:
    """An exported file or directory.

    Attributes:
        place: in the hub's repository: a file's path, or a folder's with "/" ("": the top).
        kind: gguf, mlx, safetensors, adapter or peft. label: its type, such as q4_k_m.
        parity, kept: what was measured of it; {} where it was not.
    """

    place: str
    kind: str
    label: str
    size: int
    parity: Mapping[str, Any]
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class ModelCard:
    """What the card tells.

    Attributes:
        repo: OWNER/NAME. base: its name. base_id: its id on the hub ("": it is not there).
        licence: of the base ("": not known). repository: the name of what it was trained on.
        how: name → value: init, rank, steps …
        verdict: what the evaluation came to, in a sentence. reasons: what decided it.
        measured: heading → rows of (asked, metric, from → to, interval, verdict with counts).
        metrics: each metric of these → what it means.
        limits: what to know before using it.
    """

    repo: str
    base: str
    base_id: str
    licence: str
    repository: str
    how: Mapping[str, str]
    verdict: str
    reasons: Sequence[str]
    measured: Mapping[str, Sequence[Sequence[str]]]
    metrics: Mapping[str, str]
    pieces: Sequence[Piece]
    limits: Sequence[str]


def render(card: ModelCard) -> str:
    """The text of README.md."""
    lines = ["---", yaml.safe_dump(_head(card), sort_keys=False).rstrip(), "---", ""]
    base = f"{card.base}, a base that is not on the hub"
    if card.base_id:
        base = f"[{card.base_id}](https://huggingface.co/{card.base_id})"
    lines += [f"# {card.repo.split('/')[-1]}", ""]
    lines += [f"{base}, fine-tuned on questions about one repository, {card.repository}.", ""]
    lines += [card.verdict, "", *(f"- {reason}" for reason in card.reasons)]
    lines += ["", "## Files", "", "| file | type | size | against the trained model | kept |"]
    lines += ["|---|---|---|---|---|", *map(_row, card.pieces)]
    # fmt: off
    lines += ["", "*Against the trained model*: how often the likeliest next token is equal on "
              "held-out prompts, and the mean KL divergence in nats. *Kept*: the share of what was "
              "gained over the base, in loss on held-out answers, with its 95 % interval."]
    # fmt: on
    lines += ["", "## How to run it", ""]
    for piece in card.pieces:
        lines += [*_usage(card, piece), ""]
    lines += ["It was trained to be asked with documents: number them, put the question last, and "
              "give this system prompt:", "", "```text", SYSTEM, "```"]  # fmt: skip
    for heading, rows in card.measured.items():
        lines += ["", f"## {heading}", ""]
        lines += ["| asked | metric | base → tuned | difference, 95 % interval | verdict |"]
        lines += ["|---|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    if card.metrics:
        lines += ["", *(f"- *{name}*: {meaning}" for name, meaning in card.metrics.items())]
    lines += ["", "## How it was made", ""]
    lines += [f"- {name}: {value}" for name, value in card.how.items() if value]
    lines += [
        f"- licence of the base: {card.licence or ('see there' if card.base_id else 'not known')}"
    ]
    lines += ["", "## What to know before using it", "", *card.limits]
    return "\n".join(lines) + "\n"


def _head(card: ModelCard) -> dict[str, Any]:
    kinds = list(dict.fromkeys(piece.kind for piece in card.pieces))
    head: dict[str, Any] = {}
    if card.base_id:
        head["base_model"] = card.base_id
        head["base_model_relation"] = "adapter" if kinds == ["peft"] else "finetune"
    if card.licence:
        head["license"] = card.licence.lower()
    elif card.base_id:
        head["license"] = "other"
        head["license_name"] = "that-of-the-base"
        head["license_link"] = f"https://huggingface.co/{card.base_id}"
    else:
        head["license"] = "unknown"
    libraries = {"safetensors": "transformers", "mlx": "mlx", "adapter": "mlx", "peft": "peft"}
    # A loader that reads the top of the repository comes before files that are chosen by name.
    head["library_name"] = next((libraries[kind] for kind in kinds if kind != "gguf"), "gguf")
    head["pipeline_tag"] = "text-generation"
    head["tags"] = ["forge", "raft", "code", *kinds]
    return head


def _row(piece: Piece) -> str:
    parity, kept = "not compared", "not measured"
    if piece.parity:
        parity = (
            f"{piece.parity['top1_agreement']:.1%} of {piece.parity['positions']} positions, "
            f"KL {piece.parity['mean_kl']:.2g}"
        )
    if piece.kept:
        kept = (
            f"{piece.kept['share']:.0%} [{piece.kept['low']:.0%}, {piece.kept['high']:.0%}], "
            f"{piece.kept['n']} rows of {piece.kept['clusters']} files"
        )
    name = piece.place or "this repository"
    return f"| {name} | {piece.label} | {piece.size / 1e6:,.0f} MB | {parity} | {kept} |"


def _usage(card: ModelCard, piece: Piece) -> list[str]:
    """How a stranger runs one of the pieces."""
    repo, place = card.repo, piece.place
    local = card.repo.split("/")[-1]
    fetch = f"hf download {repo} --include '{place}*' --local-dir {local}"
    if piece.kind == "gguf":
        return _shell(
            f"ollama run hf.co/{repo}:{place}  # its default context is short: set num_ctx",
            f"llama-server --hf-repo {repo} --hf-file {place} --jinja",
        )
    if piece.kind == "mlx":
        if not place:
            return _shell(f"mlx_lm.chat --model {repo}")
        return _shell(fetch, f"mlx_lm.chat --model {local}/{place}")
    if piece.kind == "adapter":
        folder = f"{local}/{place}"
        return _shell(fetch, f"mlx_lm.chat --model {folder}base --adapter-path {folder}adapter")
    inside = f", subfolder={place.rstrip('/')!r}" if place else ""
    if piece.kind == "safetensors":
        return [
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            f"model = AutoModelForCausalLM.from_pretrained({repo!r}{inside})",
            f"tokenizer = AutoTokenizer.from_pretrained({repo!r}{inside})",
            "```",
        ]
    return [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        f"base = AutoModelForCausalLM.from_pretrained({card.base_id or card.base!r})",
        f"model = PeftModel.from_pretrained(base, {repo!r}{inside})",
        f"tokenizer = AutoTokenizer.from_pretrained({card.base_id or card.base!r})",
        "```",
    ]


def _shell(*lines: str) -> list[str]:
    return ["```sh", *lines, "```"]


__all__ = ["ModelCard", "Piece", "render"]
