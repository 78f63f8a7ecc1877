"""Conditions, metrics, sides and verdicts in words, for a reader who has never seen Forge."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

CONDITION_NAMES = {
    "given": "documents as given",
    "reworded": "a wording never trained on",
    "unseen": "kinds never trained on",
    "later": "code committed after training",
    "latency": "by the clock",
    "completion": "definitions to complete",
    "perplexity": "text of held-out files",
    "humaneval": "HumanEval",
    "repo_tests": "bodies that the repository's tests run",
    "oracle": "the right documents alone",
    "distractors": "wrong documents alone (to abstain)",
    "closed_book": "no documents",
    "retrieved": "documents found by BM25",
}

OUTCOMES = {
    "better": "Yes: of the measures that were named beforehand to decide, these are better, "
    "and none is worse.",
    "worse": "No: these measures, named beforehand to decide, are worse.",
    "broke something": "It broke something: these measures, named beforehand, must not fall, "
    "and fell.",
    "no difference shown": "Not shown: none of the measures named beforehand to decide differs by "
    "more than chance would explain. That does not show that the two are alike.",
    "not enough samples": "It cannot be told from so few questions and files. Ask more of them "
    "(--answer-rows, --condition-rows), or hold out more files (test_share).",
}

METRICS = {
    "answer_loss": "how surprised it is by the right answer, in nats a token: less is better",
    "loss": "how surprised it is by the text of files, in nats a token: less is better",
    "answer_f1": "words, or names of a list, that the answer shares with the reference: 1 is all "
    "and no others; where the documents do not hold the answer, 1 for saying so",
    "exact_match": "1 if the answer is the reference, spelling of the same value aside",
    "quote_correct": "1 if it quotes, and each quote stands word for word in a document that holds "
    "the answer",
    "quote_precision": "share of its quotes that do",
    "quote_recall": "share of the reference's quotes that it gives",
    "abstention": "1 if it declines to answer exactly where the documents do not hold the answer",
    "edit_similarity": "of code: 1 less the edits between it and the reference, by length",
    "chrf": "of code: character n-grams shared with the reference (chrF)",
    "parses": "1 if the completed code has no syntax error",
    "pass@1": "share of problems solved by one answer, as their tests say",
    "pass@10": "share of problems solved by at least one of ten answers (unbiased estimate)",
    "pass@100": "share of problems solved by at least one of a hundred answers",
    "tests_pass": "1 if the repository's own tests pass with what it wrote",
    "judged": "1 if a model that judges prefers it in both orders, 1/2 for a tie",
    "first_token_seconds": "seconds until the answer begins: less is better",
    "token_seconds": "seconds for each further token: less is better",
}


def side_in_words(side: str) -> str:
    """What answered, from the side's name in tables."""
    model = side.removesuffix("+examples")
    kind, _, name = model.partition(":")
    if model == "base":
        words = "the model before training, in as many bits as the tuned one"
    elif model == "tuned":
        words = "the base with the trained adapters"
    elif kind == "checkpoint":
        words = f"the adapters as they were at step {name}"
    elif kind in ("ollama", "openai"):
        words = f"the model {name} behind a server"
    elif model.endswith(".gguf"):
        words = "an exported file, answered by llama.cpp"
    elif (Path(model) / "config.json").is_file():
        words = "a model's directory, such as an exported one"
    else:
        words = "the tuned model of another run"
    if model != side:
        words += ", shown two worked answers: so that the form of an answer alone wins nothing"
    return words


def short_names(sides: Iterable[str]) -> dict[str, str]:
    """Each side's name without the folders of its path, where that names it alone."""
    short = {side: side if ":" in side else side.rsplit("/", 1)[-1] for side in sides}
    several = {name for name, count in Counter(short.values()).items() if count > 1}
    return {side: side if name in several else name for side, name in short.items()}


def reason_in_words(reason: str) -> str:
    """A verdict's reason with CONDITION.METRIC spelled out."""
    return re.sub(r"\b([a-z_]+)\.([a-z_0-9@]+): ", _spelled, reason)


def _spelled(found: re.Match[str]) -> str:
    condition, metric = found.groups()
    if condition not in CONDITION_NAMES:
        return found[0]
    return f"{metric.replace('_', ' ')}, {CONDITION_NAMES[condition]}: "
