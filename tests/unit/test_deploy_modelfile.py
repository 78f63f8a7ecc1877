"""The Modelfile and the create request say the same, whatever the text is."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.deploy.modelfile import Model, create_body, describe, render

DIGEST = "sha256:" + "a" * 64
LISTS, FLOATS = {"stop"}, {"temperature", "top_p", "repeat_penalty"}


def described(
    system: str = "",
    parameters: dict[str, Any] | None = None,
    license: str = "",
    context_length: int | None = 2048,
    end_tokens: Sequence[str] = ("<|im_end|>",),
) -> Model:
    return describe(
        system,
        parameters or {},
        license,
        context_length=context_length,
        end_tokens=end_tokens,
    )


def unquote(text: str) -> str | None:
    for quote in ('"""', '"'):
        if text.startswith(quote):
            whole = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : -len(quote)] if whole else None
    return text


def parse(text: str) -> dict[str, Any]:
    """Read a Modelfile as Ollama's parser does: by line, until the quotes close."""
    found: dict[str, Any] = {"parameters": {}}
    waiting = ""
    for line in re.split(r"(?<=[\r\n])", text):
        waiting += "".join(mark for mark in line if mark.isprintable() or mark in "\t\r\n")
        match = re.fullmatch(r"\s*([A-Z]+)[ \t](?:([a-z_]+)[ \t])?(.*)", waiting, re.S)
        if not match:
            assert not waiting.strip(), waiting
            continue
        keyword, parameter, rest = match.groups()
        if keyword != "PARAMETER" and parameter:
            parameter, rest = None, waiting.lstrip()[len(keyword) + 1 :]
        value = unquote(rest.strip())
        if value is None:
            continue
        waiting = ""
        if keyword != "PARAMETER":
            assert keyword.lower() not in found
            found[keyword.lower()] = value
        elif parameter in LISTS:
            found["parameters"].setdefault(parameter, []).append(value)
        else:
            found["parameters"][parameter] = (
                float(value)
                if parameter in FLOATS
                else value == "true"
                if value in ("true", "false")
                else int(value)
            )
    assert not waiting.strip(), f"never closed: {waiting}"
    return found


TEXTS = [
    "Answer from the documents.",
    'He said "no".',
    '"quoted"',
    '"',
    '""',
    '"""',
    'ends in """',
    '"""starts so',
    'a """ in the middle\nand goes on',
    "two\nlines",
    "\n\nblank lines around\n\n",
    "  spaces around  ",
    "tab\there\n\tand there",
    "windows\r\nlines",
    "# no comment\nFROM nowhere\nPARAMETER stop x",
    "für Käse 日本 <｜end▁of▁sentence｜> 🙂",
    "back\\slash \\n 'single' {{ .Prompt }}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_modelfile_and_request_agree(text: str) -> None:
    model = described(
        text,
        {"stop": ["<|im_end|>", text], "temperature": 0.2, "seed": -1, "use_mmap": False},
        text,
    )
    body = create_body(model, name="demo", file="model.gguf", digest=DIGEST)
    read = parse(render(model, "model.gguf"))
    assert read.pop("from") == "./model.gguf"
    assert read == {key: body[key] for key in ("parameters", "system", "license")}
    assert body["system"] == text and body["parameters"]["stop"] == ["<|im_end|>", text]


@pytest.mark.parametrize(
    "text", ['docstring """\nnext', 'trailing """ \t\nnext', 'old mac """\rnext', '"""\n']
)
def test_text_that_a_modelfile_would_end_early_is_refused(text: str) -> None:
    with pytest.raises(ForgeError, match=r"SYSTEM, line 1: ends in \"\"\""):
        described(text)


def test_character_that_a_modelfile_drops_is_refused_with_its_place() -> None:
    with pytest.raises(ForgeError, match=r"SYSTEM, line 2: holds U\+200B"):
        described("fine\nzero\u200bwidth")
    with pytest.raises(ForgeError, match=r"PARAMETER stop, line 1: holds U\+0000"):
        described("", {"stop": "\0"})
    # A form feed is usual in licence files and means nothing.
    assert described(license="one\ftwo").license == "one two"


def test_context_and_stop_are_always_there() -> None:
    assert described().parameters == {"num_ctx": 2048, "stop": ["<|im_end|>"]}
    assert described(context_length=131072).parameters["num_ctx"] == 8192
    assert described(context_length=None).parameters["num_ctx"] == 8192
    given = described(parameters={"num_ctx": 512, "stop": "###"}).parameters
    assert given == {"num_ctx": 512, "stop": ["###"]}
    assert described(parameters={"stop": []}).parameters["stop"] == ["<|im_end|>"]
    with pytest.raises(ForgeError, match="names no end token"):
        described(end_tokens=())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_ctxt": 1}, "num_ctxt: unknown"),
        ({"typical_p": 0.5}, "typical_p: unknown"),
        ({"num_ctx": 0}, "below 1"),
        ({"num_ctx": "4096"}, "is not an integer"),
        ({"num_ctx": True}, "is not an integer"),
        ({"seed": 1.5}, "is not an integer"),
        ({"temperature": float("nan")}, "is not a number"),
        ({"temperature": True}, "is not a number"),
        ({"use_mmap": 1}, "is not true or false"),
        ({"stop": ["a", ""]}, "is not text"),
        ({"stop": [1]}, "is not text"),
    ],
)
def test_bad_parameter_is_a_usage_error(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        described(parameters=parameters)
    assert caught.value.hint


def test_nearest_parameter_is_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        described(parameters={"temprature": 1})
    assert caught.value.hint == "did you mean temperature?"


def test_from_is_a_path_and_never_a_model_name() -> None:
    model = described()
    assert render(model, "llama3").startswith("FROM ./llama3\n")
    assert render(model, "../export/m y.gguf").startswith("FROM ../export/m y.gguf\n")
    for path in ("a\nb.gguf", "b.gguf "):
        with pytest.raises(ForgeError, match="cannot carry"):
            render(model, path)


def test_request_has_a_relative_file_name_and_no_template_or_adapter() -> None:
    body = create_body(described(), name="n", file="/tmp/odd:na\\me.gguf", digest=DIGEST)
    assert body["files"] == {"odd_na_me.gguf": DIGEST}
    assert not {"template", "adapters", "quantize", "from", "system", "license"} & body.keys()
    assert not re.search("TEMPLATE|ADAPTER", render(described(), "m.gguf"))
