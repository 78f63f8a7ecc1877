"""What can be mended without a doubt: `--fix`."""

from __future__ import annotations

import re
from collections import Counter

from forge_cli.core.answer_form import render
from forge_cli.core.records import Document, Example, Quote


def repair(example: Example, repairs: Counter[str]) -> Example:
    """The example with its faults of form mended, each counted by name.

    A quote that differs from its document in white space only becomes the document's text; one
    that stands in another document shown names that one; oracles are the documents that are
    quoted; messages are rendered anew.
    """
    shown = {document.id: document for document in example.documents}
    quotes = []
    for quote in example.answer.quotes:
        mended = _mend(quote, shown)
        if mended != quote:
            repairs["quote"] += 1
        quotes.append(mended)
    answer = example.answer.model_copy(update={"quotes": quotes})
    quoted = {quote.document for quote in quotes}
    documents = [d.model_copy(update={"oracle": d.id in quoted}) for d in example.documents]
    if documents != example.documents:
        repairs["oracle"] += 1
    messages = render(documents, example.question, answer)
    if messages != example.messages and quotes == example.answer.quotes:
        repairs["messages"] += 1
    return example.model_copy(
        update={"answer": answer, "documents": documents, "messages": messages}
    )


def _mend(quote: Quote, shown: dict[str, Document]) -> Quote:
    own = shown.get(quote.document)
    if own is not None and quote.text in own.text:
        return quote
    words = [re.escape(word) for word in quote.text.split()]
    if not words:
        return quote
    pattern = re.compile(r"\s+".join(words))
    for document in [own] if own is not None else shown.values():
        if found := pattern.search(document.text):
            return Quote(document=document.id, text=found[0])
    return quote
