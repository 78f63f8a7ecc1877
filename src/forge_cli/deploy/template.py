"""The prompt as training rendered it, and the same as a template in Go's language.

Ollama takes the Jinja of a GGUF as it is, or puts a template of its own in its place where one
looks alike. `Renderer` says what the prompt must be; `as_go` writes it for a server that
renders another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.deploy.gguf_header import Header
from forge_cli.models.chat_form import as_template_reads

Turns = Sequence[Mapping[str, str]]

# Texts that no chat template holds, in the order in which they are said.
_SAID = ("\u2063system\u2063", "\u2063first\u2063", "\u2063answer\u2063", "\u2063second\u2063")


@dataclass(frozen=True)
class Renderer:
    """Renders a chat up to where the answer begins, by the template that a GGUF carries.

    Transformers' own engine, which training used; export compares the template's text.
    """

    header: Header

    def __call__(self, messages: Turns) -> str:
        """The prompt, without the token that the runner puts before it.

        Raises:
            ForgeError: the template refuses the chat.
        """
        turns = as_template_reads(self.header.template, self._render, messages)
        return self.without_bos(self._render(turns))

    def _render(self, turns: list[dict[str, Any]]) -> str:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            (prompt,), _ = render_jinja_template(
                [turns],
                chat_template=self.header.template,
                add_generation_prompt=True,
                bos_token=self.header.bos,
                eos_token=self.header.eos,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise ForgeError(
                f"the model's chat template refuses a chat: {error}", "choose another base"
            ) from None
        return str(prompt)

    def without_bos(self, prompt: str) -> str:
        """The prompt less the text of a token that the runner adds by itself."""
        header = self.header
        return prompt.removeprefix(header.bos) if header.adds_bos and header.bos else prompt


def as_go(render: Callable[[Turns], str]) -> str | None:
    """A template for Ollama that renders like `render`; None where there is none of this form.

    The form is: maybe a system text, then questions and answers in turn. What stands between
    them is found out by rendering, so nothing has to be understood of the Jinja.
    """
    first = _SAID[1]
    roles = ("system", "user", "assistant", "user")
    turns = [{"role": r, "content": c} for r, c in zip(roles, _SAID, strict=True)]
    whole = _between(render(turns), _SAID)
    alone = _between(render(turns[1:2]), (first,))
    if whole is None or alone is None or alone[1] != whole[4]:
        return None
    before, after_system, after_question, after_answer, end = map(_literal, whole)
    return (
        "{{ range $i, $turn := .Messages }}"
        f'{{{{ if eq $turn.Role "system" }}}}{before}{{{{ $turn.Content }}}}{after_system}'
        '{{ else if eq $turn.Role "user" }}'
        f"{{{{ if eq $i 0 }}}}{_literal(alone[0])}{{{{ end }}}}{{{{ $turn.Content }}}}"
        f"{{{{ else }}}}{after_question}{{{{ $turn.Content }}}}{after_answer}{{{{ end }}}}"
        f"{{{{ end }}}}{end}"
    )


def _between(text: str, said: Sequence[str]) -> list[str] | None:
    """What stands before, between and after the texts that were said; None if not each once."""
    parts = []
    for one in said:
        if text.count(one) != 1:
            return None
        before, _, text = text.partition(one)
        parts.append(before)
    return [*parts, text]


def _literal(text: str) -> str:
    # As a constant: braces and outer spaces mean nothing in it.
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""
