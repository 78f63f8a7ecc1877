"""The stage: Modelfile first, so that it is kept whatever the server does; then Ollama."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.core.records import Message
from forge_cli.deploy.address import check_name, server_url
from forge_cli.deploy.gguf_header import read_header
from forge_cli.deploy.modelfile import Model, Value, create_body, describe, render

if TYPE_CHECKING:
    from forge_cli.deploy.ollama import Server, Shown

Question = tuple[Sequence[Message], str]

_HELLO: Question = ((Message(role="user", content="Say hello."),), "")
_SMOKE_TOKENS = 128
# What Ollama shows for a model without any chat template.
_NO_TEMPLATE = {"", "{{ .Prompt }}"}
_ODD = "update Ollama; the model is there under its name, but do not rely on it"


@dataclass(frozen=True)
class SmokeAnswer:
    """One smoke question as the served model answered it."""

    question: str
    expected: str
    answer: str

    @property
    def passed(self) -> bool:
        """Whether there is an answer and the expected text stands in it."""
        return bool(self.answer.strip()) and self.expected in self.answer


@dataclass(frozen=True)
class DeployResult:
    """What was deployed; `uploaded` is False for a blob that the server already had."""

    name: str
    url: str
    modelfile: Path
    digest: str
    uploaded: bool
    answers: tuple[SmokeAnswer, ...] = ()
    dry_run: bool = False


def run(
    gguf: Path,
    *,
    name: str,
    host: str,
    out_dir: Path,
    system: str,
    parameters: Mapping[str, Value],
    license: str = "",
    smoke: Sequence[Question] = (),
    dry_run: bool = False,
    reporter: Reporter = SILENT,
) -> DeployResult:
    """Serve a GGUF under `name` on the Ollama server at `host`.

    Writes `out_dir/Modelfile`, uploads the file unless the server has it, creates the
    model, checks what the server keeps of it, and asks the smoke questions.

    Args:
        system: the prompt the model was trained with; it stands in the Modelfile.
        parameters: by Ollama's names; `num_ctx` and `stop` come from the GGUF if missing.
        smoke: (messages, text expected in the answer); none: a hello that must be answered.
            An expected text that is missing is a warning and `SmokeAnswer.passed` is False.
        dry_run: write the Modelfile, say what would be done, and contact no server.

    Raises:
        UsageError: the name, the host, a parameter, or no such file.
        ForgeError: not a model's GGUF; no server, or it refuses. The Modelfile is kept.
    """
    check_name(name)
    url = server_url(host)
    model = _describe(gguf, system, parameters, license, reporter)
    modelfile = _write(model, gguf, out_dir)
    digest = _digest(gguf, reporter)
    if dry_run:
        size = gguf.stat().st_size / 1e6
        reporter.note(f"wrote {modelfile}; a dry run contacts no server")
        reporter.note(f"would send {gguf} ({size:.1f} MB, {digest[:19]}…) to {url}")
        reporter.note(f"would create {name} and ask it {len(smoke) or 1} smoke question(s)")
        return DeployResult(name, url, modelfile, digest, uploaded=False, dry_run=True)
    body = create_body(model, name=name, file=gguf.name, digest=digest)
    try:
        uploaded, answers = _serve(gguf, url, model, body, smoke or (_HELLO,), reporter)
    except ForgeError as error:
        raise ForgeError(
            f"{error.message}; the Modelfile is kept at {modelfile}", error.hint
        ) from None
    return DeployResult(name, url, modelfile, digest, uploaded, answers)


def _serve(
    gguf: Path,
    url: str,
    model: Model,
    body: Mapping[str, Any],
    smoke: Sequence[Question],
    reporter: Reporter,
) -> tuple[bool, tuple[SmokeAnswer, ...]]:
    # Imported here: the client takes a while, and a dry run needs none.
    from forge_cli.deploy.ollama import Server

    name = body["model"]
    (digest,) = body["files"].values()
    with Server(url) as server:
        reporter.note(f"Ollama {server.version()} at {url}")
        uploaded = _send(server, gguf, digest, reporter)
        with reporter.task(f"create {name}") as task:
            for status in server.create(body):
                task.advance(detail=status)
        _check_kept(server.show(name), model, name)
        return uploaded, _ask(server, name, smoke, reporter)


def _describe(
    gguf: Path, system: str, parameters: Mapping[str, Value], license: str, reporter: Reporter
) -> Model:
    header = read_header(gguf)
    if header.kind != "model":
        raise ForgeError(
            f"{gguf}: a GGUF of kind {header.kind}, which Ollama does not serve by itself",
            "export the merged model: forge export RUN --to gguf",
        )
    model = describe(
        system,
        parameters,
        license,
        context_length=header.context_length,
        end_tokens=header.end_tokens,
    )
    if not header.has_template:
        reporter.warn(f"{gguf}: carries no chat template, so prompts may be rendered wrongly")
    asked, limit = model.parameters["num_ctx"], header.context_length
    if isinstance(asked, int) and limit and asked > limit:
        reporter.warn(f"num_ctx {asked} is beyond the {limit} tokens that the model was made for")
    return model


def _write(model: Model, gguf: Path, out_dir: Path) -> Path:
    # Not resolved: Ollama joins the paths as text, too.
    relative = os.path.relpath(gguf.absolute(), out_dir.absolute())
    text = render(model, relative.replace(os.sep, "/"))
    path = out_dir / "Modelfile"
    with atomic_file(path) as stream:
        stream.write(text.encode())
    return path


def _digest(gguf: Path, reporter: Reporter) -> str:
    digest = hashlib.sha256()
    try:
        with (
            open(gguf, "rb") as stream,
            reporter.task("hash", total=gguf.stat().st_size / 1e6) as task,
        ):
            while block := stream.read(1 << 20):
                digest.update(block)
                task.advance(len(block) / 1e6)
    except OSError as error:
        raise ForgeError(f"{gguf}: cannot be read: {error.strerror}", "check the file") from None
    return f"sha256:{digest.hexdigest()}"


def _send(server: Server, gguf: Path, digest: str, reporter: Reporter) -> bool:
    if server.has_blob(digest):
        reporter.note("the server has this file already: nothing to upload")
        return False
    try:
        with reporter.task("upload", total=gguf.stat().st_size / 1e6) as task:
            server.upload(gguf, digest, task)
    except OSError as error:
        raise ForgeError(f"{gguf}: cannot be read: {error.strerror}", "check the file") from None
    return True


def _check_kept(shown: Shown, model: Model, name: str) -> None:
    """Raise unless the server keeps what was sent: a create may drop what it does not know."""
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


def _same(sent: str | int | float | bool, kept: str) -> bool:
    if isinstance(sent, bool):
        return kept == str(sent).lower()
    if isinstance(sent, str):
        return kept == sent
    try:
        return abs(float(kept) - sent) <= 1e-6 * max(1.0, abs(sent))  # float32 on the server
    except ValueError:
        return False


def _ask(
    server: Server, name: str, smoke: Sequence[Question], reporter: Reporter
) -> tuple[SmokeAnswer, ...]:
    options = {"temperature": 0.0, "seed": 0, "num_predict": _SMOKE_TOKENS}
    answers = []
    with reporter.task("smoke", total=len(smoke)) as task:
        for messages, expected in smoke:
            turns = [{"role": m.role, "content": m.content} for m in messages]
            text = server.chat(name, turns, options)
            answers.append(SmokeAnswer(turns[-1]["content"], expected, text))
            task.advance()
            if not text.strip():
                raise ForgeError(
                    f"{name}: is served, but answers a smoke question with nothing",
                    f"try it by hand: ollama run {name}",
                )
            if not answers[-1].passed:
                reporter.warn(f"{name}: the smoke answer lacks the expected {expected!r}")
    return tuple(answers)
