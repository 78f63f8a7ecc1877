"""Pairs for DPO: the verified answer, and one that is wrong in a way that models are."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from forge_cli.core.answer_form import ABSTAIN, write_answer
from forge_cli.core.records import Answer, Example, Preference, Quote

_NUMBER = re.compile(r"\d+")
_NAMED = re.compile(r"`[^`]+`")
_SWAPS = {"None": "0", "True": "False", "False": "True", "[]": "None", '""': "None"}

Answers = dict[tuple[str, str], list[Example]]
Maker = Callable[[Example, random.Random], Answer | None]


def make_preferences(examples: Iterable[Example], *, seed: int = 0) -> Iterator[Preference]:
    """One pair for each example of which a wrong answer can be built; deterministic by seed.

    Wrong is, drawn at random of what can be built: what another document shown answers to such
    a question, another value for a default, a quote that does not stand in the documents, a
    refusal where the answer is shown, an answer where it is not.
    """
    rows = list(examples)
    answers = _answers(rows)
    for example in rows:
        rng = random.Random(f"{seed}/{example.id}")
        neighbour = partial(_neighbour, answers=answers)
        makers: list[Maker] = [neighbour]
        if example.answer.final != ABSTAIN:
            makers += [_wrong_value, _false_quote, _refusal]
        rng.shuffle(makers)
        # A bare line is told from an answer too easily: it comes last.
        makers.append(_bare_line)
        wrong = next((found for make in makers if (found := make(example, rng))), None)
        chosen = write_answer(example.answer)
        if wrong is not None and (rejected := write_answer(wrong)) != chosen:
            yield Preference(
                messages=example.messages[:-1],
                chosen=chosen,
                rejected=rejected,
                origin=example.origin,
                split=example.split,
            )


def _answers(examples: Sequence[Example]) -> Answers:
    """(kind, document) → the examples that are answered from that document alone."""
    found: Answers = {}
    for example in examples:
        sources = {quote.document for quote in example.answer.quotes}
        if sources == {example.origin.chunk}:
            found.setdefault((example.origin.kind, example.origin.chunk), []).append(example)
    return found


def _neighbour(example: Example, rng: random.Random, answers: Answers) -> Answer | None:
    """What another document shown answers to a question of this kind, said of this one."""
    kind = example.origin.kind
    kind = "default" if kind == "absent" else kind
    found = [
        (number, other)
        for number, document in enumerate(example.documents, 1)
        if not document.oracle and document.id != example.origin.chunk
        for other in answers.get((kind, document.id), ())
    ]
    for number, other in rng.sample(found, len(found)):
        reason = re.sub(r"\[\d+\]", f"[{number}]", other.answer.reason)
        own, theirs = _NAMED.search(example.answer.reason), _NAMED.search(reason)
        if own and theirs:
            reason = reason.replace(theirs[0], own[0], 1)
        answer = other.answer.model_copy(update={"reason": reason})
        if _folded(answer.final) != _folded(example.answer.final) and is_wrong(example, answer):
            return answer
    return None


def is_wrong(example: Example, answer: Answer) -> bool:
    """Whether an answer surely is: another final, or a quote that is in no oracle document."""
    oracles = [document.text for document in example.documents if document.oracle]
    false = any(all(q.text not in text for text in oracles) for q in answer.quotes)
    return false or answer.final != example.answer.final


def _wrong_value(example: Example, rng: random.Random) -> Answer | None:
    """The same quote, and another value than it says."""
    final = example.answer.final
    if (swap := _SWAPS.get(final)) is None:
        if not (found := _NUMBER.search(final)) or example.origin.kind != "default":
            return None
        other = str(int(found[0][:15]) + rng.randint(1, 9))
        swap = final[: found.start()] + other + final[found.end() :]
    return example.answer.model_copy(update={"final": swap})


def _false_quote(example: Example, rng: random.Random) -> Answer | None:
    """The right answer from a quote in which two words have changed places."""
    quotes = list(example.answer.quotes)
    number = rng.randrange(len(quotes))
    words = re.split(r"(\W+)", quotes[number].text)
    places = [n for n in range(0, len(words), 2) if words[n]]
    if len(places) < 2:
        return None
    a, b = rng.sample(places, 2)
    words[a], words[b] = words[b], words[a]
    quotes[number] = quotes[number].model_copy(update={"text": "".join(words)})
    answer = example.answer.model_copy(update={"quotes": quotes})
    return answer if is_wrong(example, answer) else None


def _refusal(example: Example, rng: random.Random) -> Answer | None:
    """A refusal, though the answer is shown."""
    return Answer(reason="No document holds the answer.", final=ABSTAIN)


def _bare_line(example: Example, rng: random.Random) -> Answer | None:
    """The first line of some document that does not answer, given for the answer."""
    lines = [
        (number, document, line)
        for number, document in enumerate(example.documents, 1)
        if not document.oracle and (line := _first_line(document.text))
    ]
    if not lines:
        return None
    number, document, line = rng.choice(lines)
    return Answer(
        reason=f"It is in document [{number}].",
        quotes=[Quote(document=document.id, text=line)],
        final=line.rstrip(":{ "),
    )


def _folded(text: str) -> str:
    return "".join(text.split()).strip("`.").lower()


def _first_line(text: str) -> str:
    """The first line of code: neither decorator nor comment."""
    lines = (line.strip() for line in text.splitlines())
    return next((ln for ln in lines if len(ln) > 8 and ln[0] not in "#@/*-\"'"), "")
