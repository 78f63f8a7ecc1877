"""What each example must satisfy. A check returns the reason for rejection, or None."""

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


def fits(tokenizer: Any, max_tokens: int) -> Check:
    """Rendered with the model's template, the row fits and has supervised tokens."""
    from forge_cli.models.chat import tokenise

    def check(example: Example) -> str | None:
        try:
            row = tokenise(tokenizer, example.messages)
        except ForgeError as error:
            return error.message
        if len(row.ids) > max_tokens:
            return f"{len(row.ids)} tokens, more than {max_tokens}: the answer would be cut off"
        return None if row.supervised > 0 else "no supervised token"

    return check


def unseen() -> Check:
    """The same question over the same documents was not there before."""
    seen: set[tuple[str, str]] = set()

    def check(example: Example) -> str | None:
        key = (example.context_id, " ".join(example.question.lower().split()))
        if key in seen:
            return "the same question over the same documents stands before it"
        seen.add(key)
        return None

    return check


def run_checks(
    examples: Sequence[Example], checks: Sequence[tuple[str, Check]]
) -> Iterator[tuple[Example, str, str]]:
    """Yield each example with the name and reason of the first check it fails ("", "")."""
    for example in examples:
        for name, check in checks:
            if reason := check(example):
                yield example, name, reason
                break
        else:
            yield example, "", ""


FIELD_CHECKS: list[tuple[str, Check]] = [
    ("empty", not_empty),
    ("quote", quote_in_oracle),
    ("founded", answer_is_founded),
    ("messages", messages_match),
]
