"""A user's right answer, as a pair for the next training: `forge train FILE --loss dpo`."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path

from forge_cli.ask import Reply
from forge_cli.ask.quotes import as_document, locate
from forge_cli.core.answer_form import (
    ABSTAIN,
    BEGIN,
    is_abstention,
    quote_spans,
    read_answer,
    write_answer,
)
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.jsonl import dump, read_records
from forge_cli.core.records import Answer, Chunk, Origin, Preference, Quote
from forge_cli.core.words import words_of

_FORM = "copy a quote word for word from a document shown, or leave the quotes out"
# Every so many pairs one validates: both kinds are needed, and from two pairs on there are.
_VALID_EVERY = 5
_SMALL = {"a", "an", "and", "are", "as", "at", "by", "for", "in", "is", "it", "of", "or", "the",
          "this", "to", "which", "with"}  # fmt: skip
_LONGEST_LINE = 300


def correct(reply: Reply, right: str) -> tuple[Preference, bool]:
    """The pair of the user's answer and the model's, and whether the user's has a quote.

    Args:
        right: in the answer form, or plain text, for which a line that bears it out is looked up.

    Raises:
        UsageError: it is empty, has a quote that is in no document shown, or is the model's own.
    """
    check_right(right)
    answer = _in_form(right, reply.documents)
    chosen = write_answer(answer)
    if chosen.strip() == reply.written.strip():
        raise UsageError(
            "--teach: the model answers exactly so", "there is nothing to correct in it"
        )
    about = answer.quotes[0].document if answer.quotes else reply.documents[0].id
    path = next(chunk.path for chunk in reply.documents if chunk.id == about)
    origin = Origin(kind="correction", chunk=about, path=path)
    pair = Preference(messages=reply.messages, chosen=chosen, rejected=reply.written, origin=origin)
    return pair, bool(answer.quotes) or is_abstention(answer.final)


def check_right(right: str) -> None:
    """Refuse, before a model is asked, what no pair can be made of.

    Raises:
        UsageError: it is empty, or not text.
    """
    if not right.strip():
        raise UsageError("--teach: the answer is empty", "write the right answer, or - for stdin")
    try:
        right.encode()
    except UnicodeEncodeError:
        raise UsageError("--teach: the answer is not UTF-8", "write it in UTF-8") from None


def _in_form(right: str, shown: Sequence[Chunk]) -> Answer:
    right = right.strip()
    if "##Answer:" not in right:
        if BEGIN in right:
            raise UsageError(
                f"--teach: has {BEGIN} but no ##Answer:",
                "write ##Reason: …, the quotes, and ##Answer: …; or plain text",
            )
        return _supported(right, shown)
    quotes = []
    for text in (text for is_quote, text in quote_spans(right) if is_quote):
        found = locate(text, shown, right) if text.strip() else None
        if found is None:
            raise UsageError(f"--teach: no document shown holds the quote {text!r}", _FORM)
        quotes.append(Quote(document=found.chunk.id, text=text))
    read = read_answer(right)
    if not read.final:
        raise UsageError("--teach: nothing stands after ##Answer:", "write the right answer there")
    return Answer(reason=read.reason, quotes=quotes, final=read.final)


def _supported(final: str, shown: Sequence[Chunk]) -> Answer:
    """The answer with the line of a document that bears it out, if there is one."""
    if is_abstention(final):
        return Answer(reason="No document holds the answer.", final=ABSTAIN)
    found = _line_for(final, shown)
    if found is None:
        return Answer(reason="It follows from the documents.", final=final)
    number, line = found
    chunk = shown[number - 1]
    # As most rows of training have it.
    where = f"`{chunk.symbol}` is defined" if chunk.symbol else "It stands"
    quote = Quote(document=chunk.id, text=line)
    return Answer(reason=f"{where} in document [{number}].", quotes=[quote], final=final)


def _line_for(final: str, shown: Sequence[Chunk]) -> tuple[int, str] | None:
    """(document, line) of the line that holds the answer, else most of its words, two at least."""
    bare = final.strip("`. ")
    wanted = set(words_of(final)) - _SMALL
    best, score = None, 0.0
    for number, chunk in enumerate(shown, 1):
        for line in (line.strip() for line in as_document(chunk).text.splitlines()):
            if not re.search(r"\w", line) or len(line) > _LONGEST_LINE:
                continue
            own = set(words_of(line))
            shared = len(own & wanted)
            # Of equal lines the one that says little else.
            found = (2.0 if bare and bare in line else 0.0) + shared / (len(wanted) or 1)
            found -= len(own) / 1e4
            enough = (bare and bare in line) or (shared >= 2 and 2 * shared >= len(wanted))
            if enough and found > score:
                best, score = (number, line), found
    return best


def keep(pair: Preference, file: Path) -> bool:
    """Add a pair to a file of corrections, for its owner alone; False if it is there already.

    One write under a lock: no other process sees half of it, and half a line of a process that
    died is taken away.

    Raises:
        ForgeError: the file cannot be written, or holds something else.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        ignore = file.parent / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        # Not through a link: the repository may be somebody else's.
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ForgeError(f"{file}: cannot write: {error.strerror}", "see its permissions") from None
    with os.fdopen(handle, "r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)
        known = list(read_records(file, Preference))
        if any(_same(one, pair) for one in known):
            return False
        split = "valid" if len(known) % _VALID_EVERY == 1 else "train"
        stream.write(dump(pair.model_copy(update={"split": split})))
        stream.flush()
        os.fsync(stream.fileno())
    return True


def _same(one: Preference, other: Preference) -> bool:
    """By question and right answer: the documents found for it may have changed."""
    asked = [pair.messages[-1].content.rpartition("\n\nQuestion: ")[2] for pair in (one, other)]
    return asked[0] == asked[1] and one.chosen == other.chosen
