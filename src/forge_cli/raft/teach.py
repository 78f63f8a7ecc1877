"""Questions that a teacher writes, taken only when the document bears them out.

The teacher sees one definition and is asked for questions, each with an answer and the span
that proves it. As in OSS-Instruct (arXiv 2312.02120) a few lines drawn from it by the seed
steer the prompt, so that the questions go where templates do not.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Chunk, Message, Verdict, content_id
from forge_cli.raft.index import Index
from forge_cli.raft.pairs import Refused, read_pairs, verify
from forge_cli.raft.questions import Ask
from forge_cli.teachers import Completion, Teacher

OnReject = Callable[[Verdict], None]

_SYSTEM = (
    "You write questions that a developer would ask about code of a repository, with answers. "
    'For each, write one line of JSON: {"question": …, "answer": …, "quote": …}. The question '
    "names the definition. The answer is short and complete. The quote is copied from the code, "
    "character for character, and proves the answer. Write nothing else."
)
_SEED_LINES = 3


def teach(
    chunks: Sequence[Chunk],
    index: Index,
    teacher: Teacher,
    *,
    questions: int,
    seed: int = 0,
    on_reject: OnReject | None = None,
    reporter: Reporter,
) -> dict[str, list[Ask]]:
    """What a teacher asks about definitions and can prove: id of a chunk → questions.

    Args:
        questions: wanted about each definition.
        on_reject: gets a verdict for each pair that is not taken and each prompt that failed.

    Raises:
        ForgeError: the teacher answers nothing.
    """
    prompts = [_prompt(chunk, index, questions, seed) for chunk in chunks]
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
        found: list[Ask] = []
        if error := answers[number].error:
            _reject(on_reject, chunk, "teacher", error)
            continue
        for item in verified(answers[number].text, chunk, index.refer(chunk)):
            if isinstance(item, Ask):
                found.append(replace(item, teacher=teacher.name))
            else:
                refused[item] += 1
                _reject(on_reject, chunk, "taught", item)
        taken[chunk.id] = found[:questions]
    _tell(teacher, sum(map(len, taken.values())), refused, reporter)
    return taken


def _prompt(chunk: Chunk, index: Index, questions: int, seed: int) -> list[Message]:
    rng = random.Random(f"{seed}/{chunk.id}")
    lines = [line for line in chunk.text.splitlines() if len(line.strip()) > 3]
    start = rng.randrange(max(1, len(lines) - _SEED_LINES + 1))
    drawn = "\n".join(lines[start : start + _SEED_LINES])
    named = index.refer(chunk)
    content = (
        f"Write {questions} different questions about {named} in `{chunk.path}`: what it is for, "
        f"how it behaves, what happens in an unusual case, why it is written so.\n\n"
        f"{chunk.header}\n{chunk.text}\n\nOne of them is about these lines:\n{drawn}"
    )
    return [Message(role="system", content=_SYSTEM), Message(role="user", content=content)]


def verified(text: str, chunk: Chunk, named: str) -> Iterator[Ask | str]:
    """For each pair in what a teacher wrote, the question, or why it is not taken."""
    taken: list[str] = []
    some = False
    for pair in read_pairs(text):
        some = True
        try:
            asked = verify(pair, chunk, named, taken)
        except Refused as error:
            yield str(error)
            continue
        taken.append(asked.question)
        yield asked
    if not some:
        yield "no JSON"


def _reject(on_reject: OnReject | None, chunk: Chunk, check: str, reason: str) -> None:
    if on_reject:
        name = f"{check}-{content_id(chunk.id, check, reason)}"
        on_reject(Verdict(id=name, check=check, reason=reason, path=chunk.path))


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
