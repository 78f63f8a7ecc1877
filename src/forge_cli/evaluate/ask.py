"""Put the questions to every side, and keep what each says, row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.core.records import Example, Message
from forge_cli.evaluate.asked import Asked, Question
from forge_cli.evaluate.conditions import with_examples
from forge_cli.evaluate.sides import Side, SideSpec
from forge_cli.teachers import Completion
from forge_cli.teachers.cache import Cached

# Losses are taken, and kept, so many rows at a time.
_BATCH = 32


@dataclass
class Heard:
    """What one side made of the questions.

    Attributes:
        answers: by question, in their order; of one that was answered many times the first.
        drawn: number of a question that was answered many times → all its answers.
        losses: of the rows, in nats per answer token; None where the side knows none.
    """

    answers: list[Completion] = field(default_factory=list)
    losses: list[float] | None = None
    drawn: dict[int, list[Completion]] = field(default_factory=dict)


def ask(
    spec: SideSpec,
    side: Side,
    asked: Asked,
    shown: Sequence[Example],
    folder: Path,
    reporter: Reporter,
) -> Heard:
    """The answers and the losses that are asked for; what was kept is not asked again.

    Args:
        shown: worked examples, for a side that gets them.
        folder: keeps answers and losses by model, parameters, prompt and draw.

    Raises:
        ForgeError: a model cannot be loaded or reached, or fails on a question.
    """
    worked = shown if spec.examples else ()

    def chat(question: Question) -> list[Message]:
        # Without documents there is nothing to show the form of.
        example = question.example
        return with_examples(example.messages, worked if example.documents else ())

    losses = _losses(spec, side, [chat(row) for row in asked.rows], folder, reporter)
    answers = _answers(spec, side, asked.questions, chat, folder, reporter)
    drawn = {n: own for n, own in enumerate(answers) if asked.questions[n].draws}
    return Heard([own[0] for own in answers], losses, drawn)


def _answers(
    spec: SideSpec,
    side: Side,
    questions: Sequence[Question],
    chat: Callable[[Question], list[Message]],
    folder: Path,
    reporter: Reporter,
) -> list[list[Completion]]:
    """All answers to each question: one for each of its draws, or the greedy one."""
    prompts = [chat(question)[:-1] for question in questions]
    answers = [[Completion()] * max(1, len(question.draws)) for question in questions]
    once = [(n, 0) for n, question in enumerate(questions) if not question.draws]
    many = [(n, at) for n, question in enumerate(questions) for at in range(len(question.draws))]
    with reporter.task(f"{spec.text}: answers", len(once) + len(many)) as task:

        def keep(place: tuple[int, int], found: Completion) -> None:
            index, at = place
            if found.error:
                raise ForgeError(
                    f"{spec.text}: no answer to row {questions[index].example.id}: {found.error}",
                    "run it again: what was answered is kept",
                )
            answers[index][at] = found
            task.advance(1)

        kept = Cached(side, folder)
        kept.complete([prompts[n] for n, _ in once], lambda n, found: keep(once[n], found))
        draws = [questions[n].draws[at] for n, at in many]
        kept.sample([prompts[n] for n, _ in many], draws, lambda n, found: keep(many[n], found))
    return answers


def _losses(
    spec: SideSpec,
    side: Side,
    chats: Sequence[list[Message]],
    folder: Path,
    reporter: Reporter,
) -> list[float] | None:
    keys = [_key(side, chat) for chat in chats]
    file = folder / "losses.jsonl"
    known = dict(_read(file))
    missing = [index for index, key in enumerate(keys) if key not in known]
    with reporter.task(f"{spec.text}: answer loss", len(chats)) as task:
        task.advance(len(chats) - len(missing))
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            found = side.losses([chats[index] for index in part])
            if found is None:
                return None
            folder.mkdir(parents=True, exist_ok=True)
            lines = [[keys[index], loss] for index, loss in zip(part, found, strict=True)]
            with open(file, "a", encoding="utf-8") as stream:
                stream.write("".join(f"{json.dumps(line)}\n" for line in lines))
            known |= {key: loss for key, loss in lines}  # type: ignore[misc]
            task.advance(len(part))
    return [known[key] for key in keys]


def _key(side: Side, chat: Sequence[Message]) -> str:
    parameters = {k: v for k, v in side.parameters.items() if k != "max_tokens"}
    told = [side.name, parameters, [[m.role, m.content] for m in chat]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> Iterator[tuple[str, float]]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            key, loss = json.loads(line)
        except ValueError:
            continue  # torn by a crash: it is taken again
        yield str(key), float(loss)
