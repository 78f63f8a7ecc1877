"""Questions that a teacher writes, taken only when the document bears them out.

The teacher sees one definition and is asked for questions, each with an answer and the span
that proves it, in the manner of OSS-Instruct (arXiv 2312.02120). Nothing is believed: a quote
that is not in the document is repaired where it is meant beyond doubt, or the pair is dropped.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from forge_cli.core.answer_form import is_abstention
from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Chunk, Message
from forge_cli.raft.index import Index, last_name
from forge_cli.raft.questions import Ask
from forge_cli.raft.spans import QUOTE_CHARS, find_span
from forge_cli.raft.teachers import Completion, Teacher

_SYSTEM = (
    "You write questions that a developer would ask about code of a repository, with answers. "
    'For each, write one line of JSON: {"question": …, "answer": …, "quote": …}. The question '
    "names the definition. The answer is short and complete. The quote is copied from the code, "
    "character for character, and proves the answer. Write nothing else."
)
_LEAST_ALIKE = 0.9  # of a line that a quote is taken for
_LONGEST_ANSWER = 600


def teach(
    chunks: Sequence[Chunk],
    index: Index,
    teacher: Teacher,
    *,
    questions: int,
    reporter: Reporter,
) -> dict[str, list[Ask]]:
    """What a teacher asks about definitions and can prove: id of a chunk → questions.

    Raises:
        ForgeError: the teacher answers nothing.
    """
    prompts = [_prompt(chunk, index, questions) for chunk in chunks]
    answers: dict[int, Completion] = {}
    with reporter.task(f"asking {teacher.name}", len(prompts)) as task:

        def done(number: int, found: Completion) -> None:
            answers[number] = found
            task.advance()

        teacher.complete(prompts, done)
    failed = [found.error for found in answers.values() if found.error]
    if prompts and len(failed) == len(prompts):
        raise ForgeError(
            f"{teacher.name}: no prompt of {len(prompts)} was answered: {failed[0]}",
            "is it running, and is --teacher-url right?",
        )
    refused: Counter[str] = Counter()
    taken: dict[str, list[Ask]] = {}
    # In the order of the chunks, not in that of the answers, which is chance.
    for number, chunk in enumerate(chunks):
        text = answers[number].text if number in answers else ""
        if text:
            found = list(verified(text, chunk, teacher.name, refused))
            taken[chunk.id] = found[:questions]
    _tell(teacher, sum(map(len, taken.values())), refused, reporter)
    return taken


def _prompt(chunk: Chunk, index: Index, questions: int) -> list[Message]:
    named = index.refer(chunk)
    content = (
        f"Write {questions} different questions about {named} in `{chunk.path}`: what it is for, "
        f"how it behaves, what happens in an unusual case, why it is written so.\n\n"
        f"{chunk.header}\n{chunk.text}"
    )
    return [Message(role="system", content=_SYSTEM), Message(role="user", content=content)]


def verified(text: str, chunk: Chunk, teacher: str, refused: Counter[str]) -> Iterator[Ask]:
    """The sound pairs in what a teacher wrote; the others are counted by why they are not."""
    seen: set[str] = set()
    pairs = list(read_pairs(text))
    if not pairs:
        refused["no JSON"] += 1
    for pair in pairs:
        question, answer, quote = (
            " ".join(value.split()) if key != "quote" and isinstance(value, str) else value
            for key, value in ((key, pair.get(key)) for key in ("question", "answer", "quote"))
        )
        if not all(isinstance(value, str) and value.strip() for value in (question, answer, quote)):
            refused["a field is missing"] += 1
            continue
        span = find_quote(str(quote), chunk.text)
        reason = _fault(str(question), str(answer), span, chunk)
        if not reason and str(question).lower() in seen:
            reason = "asked twice"
        if reason:
            refused[reason] += 1
            continue
        seen.add(str(question).lower())
        yield Ask("teacher", str(question), str(answer), [span], teacher=teacher)


def read_pairs(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects with a question in a text, whatever stands between them."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    while at != -1:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            end = at + 1
        else:
            if isinstance(value, dict) and "question" in value:
                yield value
        at = text.find("{", end)


def find_quote(quote: str, text: str) -> str:
    """The verbatim span that a quote means: itself, but for white space, or a line like it."""
    quote = quote.strip("\n")
    if quote.strip() in text:
        return quote.strip()
    if span := find_span(quote, text):
        return span
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    near = difflib.get_close_matches(quote.strip(), lines, n=1, cutoff=_LEAST_ALIKE)
    return near[0] if near else ""


def _fault(question: str, answer: str, span: str, chunk: Chunk) -> str:
    """Why a pair is not taken, or ""."""
    if not span:
        return "its quote is not in the document"
    if len(span) > QUOTE_CHARS or len(re.findall(r"\w+", span)) < 2:
        return "its quote is too long or too short"
    if not 10 <= len(question) <= 400 or len(answer) > _LONGEST_ANSWER:
        return "too long or too short"
    name = last_name(chunk.symbol)
    if not re.search(rf"\b{re.escape(name)}\b", question):
        return "its question does not name the definition"
    if is_abstention(answer):
        return "it does not answer"
    # Names of code that stand in no place of the document were made up.
    named = re.findall(r"`([^`\s]+)`", answer)
    known = f"{chunk.text}\n{chunk.header}\n{question}\n{chunk.path}"
    if any(re.sub(r"[()\s].*$", "", one) not in known for one in named):
        return "its answer names what is not in the document"
    return ""


def _tell(teacher: Teacher, taken: int, refused: Counter[str], reporter: Reporter) -> None:
    usage = teacher.usage
    reporter.note(
        f"{teacher.name}: {taken} questions taken, {refused.total()} refused; {usage.answers} "
        f"answers, {usage.cached} from the cache, {usage.failed} failed, {usage.retries} retries, "
        f"{usage.prompt_tokens} prompt and {usage.completion_tokens} completion tokens"
    )
    for reason, count in sorted(refused.items()):
        reporter.note(f"refused, {reason}: {count}")
    for error, count in sorted(Counter(usage.errors).items()):
        reporter.warn(f"{teacher.name}: {error} ({count} prompts)")
