"""One description of a model, rendered two ways: as a Modelfile and as a create request.

Both come from `Model.instructions`, so the file that stays on disk always says what was
sent. A TEMPLATE only where the server does not render the one that the GGUF carries as training
did. No ADAPTER: Ollama no longer takes one.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from forge_cli.core.errors import ForgeError, UsageError

Value = str | int | float | bool | Sequence[str]

# Names and types of `api.Options` in Ollama. typical_p is refused there.
_INTEGERS = """num_ctx num_batch num_gpu main_gpu num_thread num_keep seed num_predict top_k
    repeat_last_n draft_num_predict"""
_FLOATS = "top_p min_p temperature repeat_penalty presence_penalty frequency_penalty"
_KINDS: dict[str, type] = {
    **dict.fromkeys(_INTEGERS.split(), int),
    **dict.fromkeys(_FLOATS.split(), float),
    "use_mmap": bool,
    "stop": list,
}
DEFAULT_NUM_CTX = 8192


@dataclass(frozen=True)
class Model:
    """What a deployed model is, beside its weights."""

    system: str
    parameters: Mapping[str, int | float | bool | list[str]]
    license: str = ""
    template: str = ""  # in Go's language; only where the server renders the GGUF's own otherwise

    def instructions(self) -> Iterator[tuple[str, str, Any]]:
        """(instruction, parameter name or "", value) in the order of the Modelfile."""
        for name, value in self.parameters.items():
            yield "PARAMETER", name, value
        if self.template:
            yield "TEMPLATE", "", self.template
        if self.system:
            yield "SYSTEM", "", self.system
        if self.license:
            yield "LICENSE", "", self.license


def describe(
    system: str,
    parameters: Mapping[str, Value],
    license: str,
    *,
    context_length: int | None,
    end_tokens: Sequence[str],
) -> Model:
    """Check the values and fill in `num_ctx` and `stop`, which must never be left out.

    Ollama's default context can be as short as 4096 and cuts a longer prompt silently, and
    a GGUF whose template it does not know gets no stop text.

    Args:
        context_length: of the GGUF; caps the default `num_ctx`.
        end_tokens: the GGUF's end tokens, the default `stop`.

    Raises:
        UsageError: an unknown parameter (with the nearest name) or one of a wrong type.
        ForgeError: no stop text is known, or a text that a Modelfile cannot carry.
    """
    checked = {name: _checked(name, value) for name, value in parameters.items()}
    limit = context_length or DEFAULT_NUM_CTX
    checked.setdefault("num_ctx", min(limit, DEFAULT_NUM_CTX))
    checked["stop"] = checked.get("stop") or list(end_tokens)
    if not checked["stop"]:
        raise ForgeError(
            "the GGUF names no end token, so generation would not stop",
            "export it again, or give the parameter stop",
        )
    if int(checked["num_ctx"]) < 1:
        raise UsageError("parameter num_ctx: below 1", f"the model allows up to {limit}")
    # Licence files hold form feeds, which a Modelfile drops: a space in both.
    model = Model(system, checked, re.sub(r"[^\S \t\r\n]", " ", license))
    for keyword, name, value in model.instructions():
        for text in value if isinstance(value, list) else [str(value)]:
            _must_survive(text, f"{keyword} {name}".strip())
    return model


def _checked(name: str, value: Value) -> Any:
    if name not in _KINDS:
        near = difflib.get_close_matches(name, _KINDS, n=1)
        raise UsageError(
            f"parameter {name}: unknown to Ollama",
            f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(_KINDS))}",
        )
    kind = _KINDS[name]
    if kind is list:
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, Sequence) and all(isinstance(t, str) and t for t in texts):
            return list(texts)
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif type(value) is kind:
        return value
    wanted = {list: "text or a list of texts", float: "a number", int: "an integer"}
    raise UsageError(
        f"parameter {name}: {value!r} is not {wanted.get(kind, 'true or false')}",
        "mend the value",
    )


def render(model: Model, gguf: str) -> str:
    """The text of a Modelfile whose weights are at `gguf`, relative to the Modelfile.

    Raises:
        ForgeError: the path cannot be written in a Modelfile.
    """
    # A leading ./ makes it a path for certain: a bare word is also a model's name.
    path = gguf if gguf.startswith(("/", "./", "../")) else f"./{gguf}"
    _must_survive(path, "FROM")
    if path != path.strip() or re.search(r"[\r\n]", path):
        raise ForgeError(f"{gguf!r}: a Modelfile cannot carry this path", "rename the file")
    lines = [f"FROM {path}"]
    for keyword, name, value in model.instructions():
        for one in value if isinstance(value, list) else [value]:
            words = [keyword, name, _literal(one)] if name else [keyword, _literal(one)]
            lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def create_body(model: Model, *, name: str, file: str, digest: str) -> dict[str, Any]:
    """The body of POST /api/create for an uploaded blob.

    Args:
        name: of the model to make. file: the GGUF's file name. digest: `sha256:…` of the blob.
    """
    safe = re.sub(r"[\\:]", "_", PurePath(file).name)  # the server refuses these
    body: dict[str, Any] = {"model": name, "files": {safe: digest}, "parameters": {}}
    for keyword, parameter, value in model.instructions():
        if keyword == "PARAMETER":
            body["parameters"][parameter] = value
        else:
            body[keyword.lower()] = value
    return body


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    if re.search(r'["\r\n]', value):
        return f'"""{value}"""'
    return f'"{value}"'


def _must_survive(text: str, where: str) -> None:
    """Raise if Ollama's Modelfile parser would read `text` differently from what it is.

    The parser ends a `\"\"\"` text at the first line that closes with three quotes, and drops
    what Go's `IsPrint` refuses (`parser/parser.go`). There is no escape for either.
    """
    lines = re.split(r"[\r\n]", text)
    for number, line in enumerate(lines, 1):
        if number < len(lines) and line.rstrip().endswith('"""'):
            raise ForgeError(
                f'{where}, line {number}: ends in """, where a Modelfile would end the text',
                "put a word after the quotes",
            )
        for mark in line:
            if not mark.isprintable() and mark != "\t":
                raise ForgeError(
                    f"{where}, line {number}: holds U+{ord(mark):04X}, which a Modelfile drops",
                    "remove that character",
                )
