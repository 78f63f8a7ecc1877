"""Whether the server has what was sent: it may drop what it does not know, and render otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.deploy.connection import BrokenOff
from forge_cli.deploy.modelfile import Model
from forge_cli.deploy.ollama import Server, Shown, Turns
from forge_cli.deploy.template import Renderer, as_go

# What Ollama shows for a model without any chat template.
_NO_TEMPLATE = {"", "{{ .Prompt }}"}
_ODD = "update Ollama; the model that was served before still is"
# create takes fields in place of a Modelfile's text; a chat can be rendered without an answer.
_CREATES, _RENDERS = (0, 5, 5), (0, 11, 5)


def check_version(version: str) -> None:
    """Raise ForgeError for a server that is too old to be told what a model is."""
    if _parts(version) < _CREATES:
        raise ForgeError(
            f"Ollama {version} is too old: it cannot create a model from an uploaded file",
            "update it to 0.5.5 or later (0.11.5 or later shows how it renders prompts)",
        )


def check_kept(shown: Shown, model: Model, name: str, provenance: Mapping[str, str]) -> None:
    """Raise ForgeError unless the server keeps what was sent."""
    if shown.template.strip() in _NO_TEMPLATE:
        raise ForgeError(
            f"{name}: the server has no chat template for it, so it would see bare prompts",
            "export it again: a GGUF that Forge writes carries the template",
        )
    if shown.system != model.system:
        raise ForgeError(f"{name}: the server keeps another system prompt than was sent", _ODD)
    for parameter, value in model.parameters.items():
        kept = shown.parameters.get(parameter, [])
        wanted = value if isinstance(value, list) else [value]
        missing = [one for one in wanted if not any(_same(one, other) for other in kept)]
        if missing:
            raise ForgeError(
                f"{name}: the server keeps {parameter} {kept or 'unset'}, not {missing}", _ODD
            )
    for key, text in provenance.items():
        if key in shown.metadata and str(shown.metadata[key]) != text:
            raise ForgeError(f"{name}: the server has another file: {key} differs", _ODD)


def check_prompts(
    server: Server, version: str, model: Model, render: Renderer, reporter: Reporter
) -> str | None:
    """Compare prompts with training's, byte for byte.

    Returns:
        A template to send where the server renders otherwise; None where all is well, or the
        server is too old to say.

    Raises:
        ForgeError: `model` has a template already, or none of Forge's form renders like training.
    """
    if _parts(server.version()) < _RENDERS:
        reporter.warn(
            f"Ollama {server.version()} does not show how it renders prompts, so they were not "
            "compared with training's; 0.11.5 and later do"
        )
        return None
    different = _first_difference(server, version, model, render)
    if not different:
        reporter.note("prompts are rendered as in training, byte for byte")
        return None
    template = None if model.template else as_go(render)
    if template is None:
        raise ForgeError(f"{version}: {different}", "update Ollama, or serve it with llama-server")
    reporter.note(f"{different}; a template of training's form is sent along")
    return template


def _chats(model: Model) -> list[Turns]:
    """A question, a conversation, and a question with a system text of its own."""
    first = {"role": "user", "content": "[1] a.py: f\ndef f(x):\n    return {x}\n\nQuestion: f?"}
    said = {"role": "assistant", "content": "##Reason: it is.\n##Answer: `{{ x }}`"}
    again = {"role": "user", "content": 'And "é"?'}
    own = {"role": "system", "content": "Be brief."}
    return [[first], [first, said, again], [own, first]]


def _first_difference(server: Server, version: str, model: Model, render: Renderer) -> str:
    for turns in _chats(model):
        wanted = _expected(turns, model, render)
        try:
            found = render.without_bos(server.render(version, turns))
        except BrokenOff:
            raise
        except ForgeError as error:
            return f"the server cannot render a prompt ({error.message})"
        if found != wanted:
            at = next(
                (i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b),
                min(len(found), len(wanted)),
            )
            return (
                f"the server renders {found[at : at + 40]!r} where training "
                f"rendered {wanted[at : at + 40]!r}"
            )
    return ""


def _expected(turns: Turns, model: Model, render: Renderer) -> str:
    """As a server does it, which puts the model's own system text first."""
    if model.system and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": model.system}, *turns]
    return render(turns)


def _same(sent: str | int | float | bool, kept: str) -> bool:
    if isinstance(sent, bool):
        return kept == str(sent).lower()
    if isinstance(sent, str):
        return kept == sent
    try:
        return abs(float(kept) - sent) <= 1e-6 * max(1.0, abs(sent))  # float32 on the server
    except ValueError:
        return False


def _parts(version: str) -> tuple[int, ...]:
    """A version to compare by; one built from source calls itself 0.0.0 and is the newest."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    parts = tuple(map(int, found.groups())) if found else (0, 0, 0)
    return parts if any(parts) else (1 << 30,)
