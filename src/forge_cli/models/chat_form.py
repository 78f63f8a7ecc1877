"""In which form a chat template takes a chat in whole.

Some templates refuse a system turn or leave it out, some read content as a list of parts. All that
renders for a model asks here, so that training, evaluation and deployment give it one prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from forge_cli.core.errors import ForgeError

# Whether the system text is to go into the first user turn, and whether content is to be parts;
# what is nearest to the chat is tried first.
_FORMS = ((False, False), (True, False), (False, True), (True, True))
_SYSTEM, _USER = "what the system says", "what the user says"
_known: dict[str, tuple[bool, bool]] = {}  # by template


def as_template_reads(
    template: str,
    render: Callable[[list[dict[str, Any]]], str],
    chat: Sequence[Mapping[str, str]],
) -> list[dict[str, Any]]:
    """The chat in the form that a template takes it in whole.

    A system text for which there is no place goes into the first user turn, as in llama.cpp.

    Args:
        template: its text.
        render: the prompt of a chat by it; raises ForgeError where it refuses one.

    Raises:
        ForgeError: the template refuses a chat or leaves out what a user says, whatever the form.
    """
    if template not in _known:
        _known[template] = _find_form(render)
    return _formed(chat, *_known[template])


def _find_form(render: Callable[[list[dict[str, Any]]], str]) -> tuple[bool, bool]:
    asked = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    reason = "it leaves out what a user says"
    for form in _FORMS:
        try:
            text = render(_formed(asked, *form))
        except ForgeError as error:
            reason = error.message
            continue
        if _SYSTEM in text and _USER in text:
            return form
    raise ForgeError(f"the chat template takes no plain chat: {reason}", "choose an instruct model")


def _formed(chat: Sequence[Mapping[str, str]], folded: bool, parts: bool) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = [dict(turn) for turn in chat]
    if folded and [turn["role"] for turn in turns[:2]] == ["system", "user"]:
        system, user = turns[:2]
        turns[:2] = [{**user, "content": f"{system['content']}\n{user['content']}"}]
    if parts:
        for turn in turns:
            turn["content"] = [{"type": "text", "text": turn["content"]}]
    return turns


__all__ = ["as_template_reads"]
