"""Text of a repository as Markdown and as HTML: whatever it holds, it is shown, never obeyed.

In templates all that is printed passes here (`for_markdown`, `for_html`), so that a template need
not think of it.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# Control characters, and those that turn the direction of what follows them.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# In this order: what GitHub makes a link of by itself (a person, who is then notified, an issue,
# an address), what Markdown gives a meaning to, and what is HTML's or a table's.
_SPECIAL = re.compile(
    r"(?P<link>@(?=\w)|#(?=\d)|(?i:\bwww)(?=\.))"
    r"|(?P<mark>[\\`*{}\[\]~$]|(?<![^\W_])_|_(?![^\W_]))"
    r"|(?P<entity>[&<>|]|:(?=//))"
)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# What begins a heading, a list, a quotation or a line at the start of a line.
_BEGINS = re.compile(r"^( ?)((?:#{1,6}|[-+=]+)(?=\s|$)|\d+(?=[.)](?:\s|$)))")
_CODE_FREE = re.compile(r"^[^`|]+$")


def clean(text: str) -> str:
    """Without control characters."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


def shorten(text: str, length: int) -> str:
    """On one line, cut at a word where it is longer than `length` characters."""
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    head = line[: length - 1]
    at = head.rfind(" ")
    return (head[:at] if at > length // 2 else head).rstrip() + "…"


def markdown(text: str) -> Markup:
    """As GitHub's Markdown that shows just this text, on one line; also within a table."""
    line = re.sub(r"\s+", " ", clean(text))
    return Markup(_BEGINS.sub(_unbegun, _SPECIAL.sub(_unmarked, line)))


def markdown_code(text: str) -> Markup:
    """The same in the type of code."""
    line = " ".join(clean(text).split())
    if not line:
        return Markup("")
    if _CODE_FREE.match(line):
        return Markup(f"`{line}`")
    # A pipe ends a cell even within backticks, and with a backslash it shows one elsewhere.
    return Markup(f"<code>{markdown(line)}</code>")


def html_code(text: str) -> Markup:
    """In the type of code."""
    return Markup("<code>{}</code>").format(clean(text)) if text else Markup("")


def for_markdown(value: object) -> object:
    """What a Markdown template prints for a value; markup stays as it is."""
    if isinstance(value, list | tuple | dict):
        return markdown(str(value))
    return markdown(value) if isinstance(value, str) and not _is_markup(value) else value


def for_html(value: object) -> object:
    """What an HTML template prints for a value; markup stays as it is."""
    return escape(clean(value)) if isinstance(value, str) and not _is_markup(value) else value


def _is_markup(value: object) -> bool:
    return hasattr(value, "__html__")


def _unmarked(found: re.Match[str]) -> str:
    text = found[0]
    if found["link"]:
        return text + "\N{ZERO WIDTH SPACE}"
    return f"\\{text}" if found["mark"] else _ENTITIES.get(text, f"&#{ord(text)};")


def _unbegun(found: re.Match[str]) -> str:
    space, text = found.groups()
    return space + (f"{text}\\" if text.isdigit() else f"\\{text}")
