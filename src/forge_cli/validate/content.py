"""What must not be trained on: secrets, personal data, licence texts, junk."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache

from forge_cli.core.answer_form import write_answer
from forge_cli.core.records import Example

# One alternation, so that a text is read once. Forms as published by their issuers.
_TOKENS = re.compile(
    r"(?P<private_key>-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----)"
    r"|(?P<aws_key>\b(?:AKIA|ASIA)[0-9A-Z]{16}\b)"
    r"|(?P<github>\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{60,})"
    r"|(?P<gitlab>\bglpat-[\w-]{20,})"
    r"|(?P<slack>\bxox[abprs]-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T\w+/B\w+/\w{20,})"
    r"|(?P<google>\bAIza[\w-]{35}\b)"
    r"|(?P<stripe>\b[sr]k_live_[A-Za-z0-9]{20,})"
    r"|(?P<openai>\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,})"
    r"|(?P<npm>\bnpm_[A-Za-z0-9]{36}\b)"
    r"|(?P<pypi>\bpypi-[\w-]{50,})"
    r"|(?P<jwt>\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{15,})"
    r"|(?P<url>\b[a-z][a-z0-9+.-]{2,}://[^\s:/@'\"]{1,64}:(?P<password>[^\s@/'\"]{6,64})@[\w.-]+)"
)
_ASSIGNED = re.compile(
    r"""(?i)\b[\w.-]{0,40}(?:secret|token|passwd|password|api_?key|auth_?key|access_?key)[\w.-]{0,20}"""
    r"""['"]?\s*(?::|=|=>|:=)\s*['"](?P<value>[^\s'"]{16,200})['"]"""
)
# What stands in documentation and tests for a secret.
_PLACEHOLDER = re.compile(
    r"(?i)example|sample|dummy|placeholder|changeme|your[_-]|xxxx|0000|1234567|abcdef|test|fake"
    r"|<|\$\{|\{\{|%s|\.\.\.|^\*+$|password|user:pass|secret"
)
_LEAST_ENTROPY = 3.7  # bits a character; words of a language are below, random base64 above

_EMAIL = re.compile(r"\b[\w.+-]+@(?P<domain>[\w-]+(?:\.[\w-]+)+)\b")
_NO_PERSON = re.compile(
    r"(?i)(^|\.)(example|test|invalid|localhost|local)(\.|$)|\.(py|js|ts|go|rs|java|c|h|png)$"
)
_CARD = re.compile(r"(?<![\w.-])(?:\d[ -]?){15}\d(?![\w.-])")
_PHONE = re.compile(r"(?<![\w.])\+\d{1,3}[ -]\(?\d{2,4}\)?[ -]\d{3,4}[ -]\d{3,4}(?![\w.])")

_LICENCE = re.compile(
    r"(?i)licensed under the|permission is hereby granted|spdx-license-identifier"
    r"|redistribution and use in source|gnu (lesser |affero )?general public license"
    r"|without warranties or conditions|all rights reserved"
)
_LONGEST_LINE, _MEAN_LINE, _DIGITS = 1000, 150, 0.3


def no_secret(example: Example) -> str | None:
    """No document, question or answer holds a key, a token or a password."""
    for document in example.documents:
        if found := secret_in(document.text):
            return f"{found} in {document.path}"
    found = secret_in(example.question) or secret_in(write_answer(example.answer))
    return f"{found} in the question or answer" if found else None


@lru_cache(maxsize=8192)
def secret_in(text: str) -> str | None:
    """The kind of the first secret in a text. What says that it is an example is none."""
    for match in _TOKENS.finditer(text):
        kind = match.lastgroup or ""
        if match["password"]:
            if not _PLACEHOLDER.search(match["password"]) and match["password"][0] not in "$%{<":
                return "a password in a URL"
        elif kind == "private_key" or not _PLACEHOLDER.search(match[0]):
            return f"a secret ({kind.replace('_', ' ')})"
    for match in _ASSIGNED.finditer(text):
        value = match["value"]
        mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
        if mixed and entropy(value) >= _LEAST_ENTROPY and not _PLACEHOLDER.search(value):
            return "a secret (assigned)"
    return None


def entropy(text: str) -> float:
    """Shannon entropy of a text's characters, in bits each."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def nobody_named(example: Example) -> str | None:
    """The answer, which is what is learned, holds no address, telephone or card number.

    Documents may: authors sign their files, and what is only shown is not learned.
    """
    text = write_answer(example.answer)
    for match in _EMAIL.finditer(text):
        if not _NO_PERSON.search(match["domain"]):
            return f"an e-mail address in the answer ({match[0][:3]}…)"
    if _PHONE.search(text):
        return "a telephone number in the answer"
    for match in _CARD.finditer(text):
        if _luhn(re.sub(r"\D", "", match[0])):
            return "a payment card number in the answer"
    return None


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    doubled = [int(d) * (1 + n % 2) for n, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(d - 9 * (d > 9) for d in doubled) % 10 == 0


def no_licence(example: Example) -> str | None:
    """The answer is no licence text."""
    found = _LICENCE.search(write_answer(example.answer))
    return f"the answer quotes a licence: {found[0]!r}" if found else None


def readable(example: Example) -> str | None:
    """What answers is text that people wrote: not minified, not data, not control characters.

    The limits are those with which The Stack was filtered (arXiv 2211.15533).
    """
    for document in example.documents:
        if document.oracle and (reason := _junk(document.text)):
            return f"{document.path}: {reason}"
    answer = write_answer(example.answer)
    odd = sum(not (c.isprintable() or c in "\n\t\r\f") for c in answer)
    return "the answer holds control characters" if odd else None


@lru_cache(maxsize=8192)
def _junk(text: str) -> str | None:
    lines = text.splitlines() or [""]
    if max(map(len, lines)) > _LONGEST_LINE:
        return f"a line of more than {_LONGEST_LINE} characters"
    if len(text) / len(lines) > _MEAN_LINE:
        return f"lines of more than {_MEAN_LINE} characters on average"
    if sum(map(str.isdigit, text)) > _DIGITS * len(text):
        return f"more than {_DIGITS:.0%} digits"
    return None
