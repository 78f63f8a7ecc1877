"""How often a whole evaluation errs: verdicts on simulated sides whose true skill is known.

python benchmarks/verdicts.py [TRIALS]

Each trial is an evaluation by the suite `raft`: 48 questions as given and 24 under each other
condition, over files of unequal size. A file is hard or easy for both sides; each side answers,
quotes and abstains by chance, with the file's odds. The tuned side gets `gain` more of them right.
forge    the suite's verdict: intervals by file, Holm's correction, "better" or a kind of harm
naive    any metric of the suite's rules whose interval, of rows drawn singly, leaves 0 out
Printed: per cent of trials. Of gain 0, what is not "no difference shown" is an error: at most 5.
"""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
from numpy.random import Generator

from forge_cli.core.answer_form import render
from forge_cli.core.records import Answer, Document, Example, Origin
from forge_cli.evaluate.ask import Heard
from forge_cli.evaluate.asked import Question
from forge_cli.evaluate.pairing import Pair, make_pairs
from forge_cli.evaluate.statistics.clustered import clustered_mean
from forge_cli.evaluate.statistics.verdict import decide
from forge_cli.evaluate.suites import read_suite

ROWS = {"given": 48, "reworded": 24, "unseen": 24, "distractors": 24, "retrieved": 24}
FILES, GAINS = (12, 20, 40), (0.0, 0.1, 0.2, 0.3, -0.2)
RULES = read_suite("raft").rules
Scores = dict[str, list[dict[str, float]]]


def make_questions(rng: Generator, files: int) -> list[Question]:
    """Rows of files of unequal size, under every condition."""
    document = Document(id="d", path="a.py", text="n = 3", oracle=True)
    answer = Answer(reason="r", final="3")
    sizes = rng.geometric(0.2, files).astype(float)
    found = []
    for condition, count in ROWS.items():
        for file in rng.choice(files, count, p=sizes / sizes.sum()):
            example = Example(
                id="1", context_id="c", documents=[document], question="q", answer=answer,
                messages=render([document], "q", answer),
                origin=Origin(kind="default", chunk="d", path=f"{file}.py"),
            )  # fmt: skip
            found.append(Question(condition, example))
    return found


def answer_by_chance(rng: Generator, questions: list[Question], gain: float) -> Scores:
    """Scores of two sides, alike but for the gain."""
    odds = {path: rng.beta(1.5, 1.5) for path in sorted({q.example.origin.path for q in questions})}
    scores: Scores = {"base": [], "tuned": []}
    for question in questions:
        for side, own in scores.items():
            right = np.clip(odds[question.example.origin.path] + gain * (side == "tuned"), 0, 1)
            exact = float(rng.random() < right)
            own.append({
                "exact_match": exact,
                "answer_f1": exact or float(rng.random() < 0.5) * rng.random(),
                # Who answers right mostly quotes right.
                "quote_correct": exact if rng.random() < 0.6 else float(rng.random() < right),
                "abstention": exact if rng.random() < 0.6 else float(rng.random() < right),
            })  # fmt: skip
    return scores


def judge(questions: list[Question], scores: Scores, how: dict[str, int]) -> str:
    """The suite's verdict."""
    heard = {name: Heard() for name in scores}
    pairs = make_pairs(list(scores), questions, [], heard, scores, decisive=RULES.named, **how)
    return decide({name_of(pair): pair.found for pair in pairs}, RULES).outcome


def name_of(pair: Pair) -> str:
    """As rules name it."""
    return f"{pair.condition}.{pair.metric}"


def differs_naively(questions: list[Question], scores: Scores, how: dict[str, int]) -> bool:
    """Whether some metric that decides seems to differ, were all rows alone."""
    for name in RULES.wins:
        condition, metric = name.split(".")
        places = [at for at, question in enumerate(questions) if question.condition == condition]
        gains = [scores["tuned"][at][metric] - scores["base"][at][metric] for at in places]
        found = clustered_mean(gains, list(map(str, places)), **how)
        if not found.low <= 0 <= found.high:
            return True
    return False


def simulate(trials: int, files: int, gain: float, resamples: int = 1000) -> Counter[str]:
    """Outcome → trials; also `naive`, of trials that a reader of rows would call different."""
    rng, found = np.random.default_rng(1), Counter[str]()
    for seed in range(trials):
        questions = make_questions(rng, files)
        scores = answer_by_chance(rng, questions, gain)
        how = {"resamples": resamples, "seed": seed}
        found[judge(questions, scores, how)] += 1
        found["naive"] += differs_naively(questions, scores, how)
    return found


def main() -> None:
    """A line for each number of files and gain."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"{trials} trials each, per cent")
    print(f"{'files':>6}{'gain':>6}{'better':>8}{'harm':>6}{'none shown':>12}{'too few':>9}"
          f"{'naive: differs':>16}")  # fmt: skip
    for files in FILES:
        for gain in GAINS:
            found = simulate(trials, files, gain)
            harm = found["worse"] + found["broke something"]
            shares = [
                100 * count / trials
                for count in (
                    found["better"], harm, found["no difference shown"],
                    found["not enough samples"], found["naive"],
                )
            ]  # fmt: skip
            better, worse, none, few, naive = shares
            print(f"{files:6}{gain:+6.1f}{better:8.1f}{worse:6.1f}{none:12.1f}{few:9.1f}"
                  f"{naive:16.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
