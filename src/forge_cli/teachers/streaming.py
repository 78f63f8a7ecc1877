"""One answer of an OpenAI-compatible server, piece by piece as it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message

if TYPE_CHECKING:
    from forge_cli.teachers.openai import OpenAITeacher

_HINT = "see that the server runs and streams /chat/completions; run it again"


def stream(teacher: OpenAITeacher, prompt: list[Message]) -> Iterator[str]:
    """Pieces of the greedy answer's text, each at the moment that it arrives.

    Server-sent events as in https://html.spec.whatwg.org/multipage/server-sent-events.html: lines
    of `data: JSON`, the last `data: [DONE]`. It is asked once: a second try would be no measure.

    Raises:
        ForgeError: the server cannot be reached, refuses, or sends something else.
    """
    import httpx

    body = teacher.body(prompt) | {"stream": True}
    where = f"{teacher.name} at {teacher.url}"
    try:
        with httpx.stream(
            "POST", f"{teacher.url}/chat/completions", json=body, headers=teacher.headers(),
            timeout=teacher.timeout,
        ) as response:  # fmt: skip
            if response.status_code != 200:
                response.read()
                code = response.status_code
                raise ForgeError(f"{where}: HTTP {code}: {teacher.said(response)}", _HINT)
            events = (line for line in response.iter_lines() if line.startswith("data:"))
            event = next(events, "data: no event")  # which is no JSON
            while event and event.removeprefix("data:").strip() != "[DONE]":
                yield from _text(event.removeprefix("data:"))
                event = next(events, "")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ForgeError(f"{where}: {type(error).__name__}: {error}", _HINT) from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise ForgeError(f"{where}: it does not stream an answer", _HINT) from None


def _text(data: str) -> Iterator[str]:
    """The text of an event, if it has some: the first may name the role alone."""
    choices = json.loads(data)["choices"]
    if choices and (text := choices[0]["delta"].get("content")):
        yield str(text)
