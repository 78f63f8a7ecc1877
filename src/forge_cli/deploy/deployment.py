"""The stage: Modelfile first, so that it is kept whatever the server does; then Ollama."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.jsonl import atomic_file
from forge_cli.deploy.address import check_name, full_name, server_url
from forge_cli.deploy.gguf_header import Header, read_header
from forge_cli.deploy.modelfile import Model, Value, describe, render
from forge_cli.deploy.registry import Registry

if TYPE_CHECKING:
    from forge_cli.deploy.rollout import RolledOut
    from forge_cli.deploy.smoke import Question, SmokeAnswer


@dataclass(frozen=True)
class DeployResult:
    """What was deployed.

    Attributes:
        name: what users ask for. version: the name that it keeps. previous: what `name` was.
        uploaded: False for a file that the server already had.
    """

    name: str
    url: str
    modelfile: Path
    digest: str
    uploaded: bool
    version: str = ""
    previous: str = ""
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
    registry: Path | None = None,
    source: str = "",
    keep: int = 3,
    dry_run: bool = False,
    reporter: Reporter = SILENT,
) -> DeployResult:
    """Serve a GGUF on the Ollama server at `host`: as a version, and then under `name`.

    Writes `out_dir/Modelfile`, uploads the file unless the server has it, creates the version,
    checks what the server keeps of it and how it renders prompts, asks the smoke questions, and
    lets `name` be the version. Whatever fails leaves `name` as it was.

    Args:
        name: as users ask for it; the tag `latest` where it has none.
        system: the prompt the model was trained with; it stands in the Modelfile.
        parameters: by Ollama's names; `num_ctx` and `stop` come from the GGUF if missing.
        license: the one that the file names, if empty.
        smoke: none: a hello that must be answered.
        registry: file of what was deployed (None: not written down).
        source: the run that it came from, for the registry.
        keep: versions of `name` from here that stay on the server; what is served and what was
            before it always do.
        dry_run: write the Modelfile, say what would be done, and contact no server.

    Raises:
        UsageError: the name, the host, a parameter, or no such file.
        GateFailed: the smoke questions are not answered as they must be.
        ForgeError: not a model's GGUF; no server, or it refuses. The Modelfile is kept.
    """
    check_name(name)
    url = server_url(host)
    header = read_header(gguf)
    model = _describe(gguf, header, system, parameters, license, reporter)
    modelfile = _write(model, gguf, out_dir)
    # Imported here, and below: the client takes a while, and a dry run needs none.
    from forge_cli.deploy.upload import digest_of

    digest = digest_of(gguf, reporter)
    if dry_run:
        size = gguf.stat().st_size / 1e6
        reporter.note(f"wrote {modelfile}; a dry run contacts no server")
        reporter.note(f"would send {gguf} ({size:.1f} MB, {digest[:19]}…) to {url}")
        reporter.note(f"would create a version of {name} and ask it {len(smoke) or 1} question(s)")
        reporter.note(f"would then let {full_name(name)} be that version")
        return DeployResult(name, url, modelfile, digest, uploaded=False, dry_run=True)
    log = Registry(registry) if registry else None
    facts = {"source": source or str(gguf), "file": str(gguf.absolute()), "digest": digest}
    try:
        uploaded, done = _serve(gguf, header, url, model, name, digest, smoke, reporter)
    except ForgeError as error:
        if log:
            log.add("refused", url, full_name(name), "", reason=error.message, **facts)
        error.message += f"; the Modelfile is kept at {modelfile}"
        error.args = (error.message,)
        raise
    if done.model.template:
        _write(done.model, gguf, out_dir)
    if log:
        if done.changed:
            more = {"previous": done.previous} | facts
            log.add("deployed", url, full_name(name), done.version, **more)
        _prune(url, name, log, keep, done, reporter)
    return DeployResult(
        name, url, modelfile, digest, uploaded, done.version, done.previous, done.answers
    )


def _serve(
    gguf: Path,
    header: Header,
    url: str,
    model: Model,
    name: str,
    digest: str,
    smoke: Sequence[Question],
    reporter: Reporter,
) -> tuple[bool, RolledOut]:
    from forge_cli.deploy.kept import check_version
    from forge_cli.deploy.ollama import Server
    from forge_cli.deploy.rollout import roll_out
    from forge_cli.deploy.smoke import HELLO
    from forge_cli.deploy.template import Renderer
    from forge_cli.deploy.upload import send

    with Server(url) as server:
        version = server.version()
        reporter.note(f"Ollama {version} at {url}")
        check_version(version)
        uploaded = send(server, gguf, digest, reporter)
        done = roll_out(
            server,
            model,
            name=name,
            file=gguf.name,
            digest=digest,
            render=Renderer(header),
            questions=smoke or (HELLO,),
            reporter=reporter,
        )
        return uploaded, done


def _prune(
    url: str, name: str, log: Registry, keep: int, done: RolledOut, reporter: Reporter
) -> None:
    """Remove the oldest versions that were deployed from here, but what is and was served."""
    from forge_cli.deploy.ollama import Server

    own = log.own(url, full_name(name))
    old = [one for one in own if one not in (done.version, done.previous)]
    try:
        with Server(url) as server:
            for version in old[: max(0, len(own) - keep)]:
                if server.find(version):
                    server.delete(version)
                log.add("removed", url, full_name(name), version)
                reporter.note(f"{version}: removed, {keep} versions are kept (keep_versions)")
    except ForgeError as error:  # the new one is served; room is a matter for the next time
        reporter.warn(f"old versions stay: {error.message}")


def _describe(
    gguf: Path,
    header: Header,
    system: str,
    parameters: Mapping[str, Value],
    license: str,
    reporter: Reporter,
) -> Model:
    if header.kind != "model":
        raise ForgeError(
            f"{gguf}: a GGUF of kind {header.kind}, which Ollama does not serve by itself",
            "export the merged model: forge export RUN --to gguf",
        )
    model = describe(
        system,
        parameters,
        license or header.license,
        context_length=header.context_length,
        end_tokens=header.end_tokens,
    )
    if not header.template:
        reporter.warn(f"{gguf}: carries no chat template, so prompts may be rendered wrongly")
    asked, limit = model.parameters["num_ctx"], header.context_length
    if isinstance(asked, int) and limit and asked > limit:
        reporter.warn(f"num_ctx {asked} is beyond the {limit} tokens that the model was made for")
    short = header.short_context
    if isinstance(asked, int) and short and asked <= short:
        reporter.warn(
            f"num_ctx {asked}: llama.cpp then uses the factors for a short context, training used "
            f"the long ones; serve more than {short} tokens (num_ctx)"
        )
    return model


def _write(model: Model, gguf: Path, out_dir: Path) -> Path:
    # Not resolved: Ollama joins the paths as text, too.
    relative = os.path.relpath(gguf.absolute(), out_dir.absolute())
    text = render(model, relative.replace(os.sep, "/"))
    path = out_dir / "Modelfile"
    with atomic_file(path) as stream:
        stream.write(text.encode())
    return path
