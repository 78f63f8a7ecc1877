"""The form of an example: quotes, refusals, messages, length. Checks return a reason or None."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from forge_cli.core.answer_form import ABSTAIN, render
from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Example

Check = Callable[[Example], str | None]


def quote_in_oracle(example: Example) -> str | None:
    """Every quote stands verbatim in the shown document it names, and that is an oracle."""
    shown = {document.id: document for document in example.documents}
    for quote in example.answer.quotes:
        document = shown.get(quote.document)
        if document is None:
            return f"quotes document {quote.document}, which is not shown"
        if quote.text not in document.text:
            return f"quote is not in its document: {quote.text[:60]!r}"
        if not document.oracle:
            return f"quotes {document.path}, which is a distractor"
    return None


def answer_is_founded(example: Example) -> str | None:
    """With an oracle the answer quotes it; without one the answer abstains."""
    oracle = any(document.oracle for document in example.documents)
    abstains = example.answer.final == ABSTAIN
    if oracle and not example.answer.quotes:
        return "the oracle is shown but nothing is quoted"
    if not oracle and (example.answer.quotes or not abstains):
        return "no oracle is shown, yet it does not abstain"
    if oracle and abstains:
        return "the oracle is shown, yet it abstains"
    return None


def messages_match(example: Example) -> str | None:
    """The chat that trains says what the record's fields say."""
    expected = render(example.documents, example.question, example.answer)
    return None if example.messages == expected else "messages differ from documents and answer"


def not_empty(example: Example) -> str | None:
    """Documents, question and answer have text."""
    texts = [example.question, example.answer.final, *(d.text for d in example.documents)]
    return None if example.documents and all(t.strip() for t in texts) else "something is empty"


def too_long(
    examples: Sequence[Example], tokenizer: Any, max_tokens: int, lengths: dict[str, int]
) -> Iterator[str | None]:
    """For each row: why, rendered with the model's template, it cannot be trained on.

    Args:
        lengths: filled with the tokens of each row that was rendered, by its id.
    """
    from forge_cli.models.chat import tokenise_many

    rows = tokenise_many(tokenizer, [example.messages for example in examples])
    for example, row in zip(examples, rows, strict=True):
        if isinstance(row, ForgeError):
            yield row.message
            continue
        lengths[example.id] = len(row.ids)
        if len(row.ids) > max_tokens:
            yield f"{len(row.ids)} tokens, more than {max_tokens}: the answer would be cut off"
        else:
            yield None if row.supervised > 0 else "no supervised token"
