"""A new version beside the old one: made, checked, asked, and only then the one that is served.

The name that users ask for (`model:latest`) is a second name of a version
(`model:20261123-ab12cd`). It moves last, so that whatever fails before leaves the old model
served, and it moves back if what it shows then is wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.events import Reporter
from forge_cli.deploy.address import full_name, with_tag
from forge_cli.deploy.kept import check_kept, check_prompts
from forge_cli.deploy.modelfile import Model, create_body
from forge_cli.deploy.ollama import Server, Stored
from forge_cli.deploy.smoke import Question, SmokeAnswer, ask
from forge_cli.deploy.template import Renderer, as_go


@dataclass(frozen=True)
class RolledOut:
    """What is served now.

    Attributes:
        version: the name that stays. previous: the version before it; empty if there was none.
        model: as the server has it; with a template where it needed one.
        changed: whether the name was another model, or none, before.
    """

    version: str
    previous: str
    model: Model
    answers: tuple[SmokeAnswer, ...]
    changed: bool


def roll_out(
    server: Server,
    model: Model,
    *,
    name: str,
    file: str,
    digest: str,
    render: Renderer,
    questions: Sequence[Question],
    reporter: Reporter,
    today: str | None = None,
) -> RolledOut:
    """Make the version, check it, and let `name` be it.

    Args:
        name: what users ask for. file, digest: of the blob, which the server has.
        render: the prompt as training made it.
        questions: asked of the version before `name` moves.
        today: YYYYMMDD of a new version (None: of the clock, UTC).

    Raises:
        ForgeError, GateFailed: `name` is what it was before, and the version is gone.
    """
    name = full_name(name)
    served = server.find(name)
    version = _version_of(server, name, model, digest, today)
    known = server.find(version)
    with _undone_if_it_fails(
        lambda: None if known else _remove(server, version, reporter), reporter
    ):
        model = (known and _as_it_is(server, model, version, render, reporter)) or _make(
            server, model, version, file, digest, render, reporter
        )
        answers = ask(server, version, questions, model.system, reporter)
        previous = _kept_name(server, name, served, today)
        with _undone_if_it_fails(lambda: _put_back(server, name, previous, reporter), reporter):
            move(server, name, version, reporter)
    changed = previous != version
    return RolledOut(version, previous if changed else "", model, answers, changed)


def move(server: Server, name: str, version: str, reporter: Reporter) -> None:
    """Let `name` be `version`, see that it is, and warm it up.

    Raises:
        ForgeError: the server refuses, or `name` is another model after it.
    """
    server.copy(version, name)
    wanted, found = server.find(version), server.find(name)
    if not wanted or not found or wanted.digest != found.digest:
        raise ForgeError(
            f"{server.url}: {name} is not {version} after it was named so", "update Ollama"
        )
    reporter.note(f"{name} is {version} now")
    try:
        server.load(name)
    except ForgeError as error:  # it has answered already: a cold start is no failure
        reporter.warn(f"{name} is served, but could not be warmed up: {error.message}")


def _as_it_is(
    server: Server, model: Model, version: str, render: Renderer, reporter: Reporter
) -> Model | None:
    """The version that the server has from before; None where it is not as it must be."""
    shown = server.show(version)
    if shown.template == as_go(render):
        model = replace(model, template=shown.template)
    try:
        check_kept(shown, model, version, render.header.provenance)
        if check_prompts(server, version, model, render, reporter):
            return None
    except ForgeError:
        return None
    reporter.note(f"{version} is on the server already")
    return model


def _make(
    server: Server,
    model: Model,
    version: str,
    file: str,
    digest: str,
    render: Renderer,
    reporter: Reporter,
) -> Model:
    """Create the version and check it; with a TEMPLATE where the server renders otherwise."""
    _create(server, create_body(model, name=version, file=file, digest=digest), reporter)
    check_kept(server.show(version), model, version, render.header.provenance)
    template = check_prompts(server, version, model, render, reporter)
    if template is None:
        return model
    model = replace(model, template=template)
    _create(server, create_body(model, name=version, file=file, digest=digest), reporter)
    check_kept(server.show(version), model, version, render.header.provenance)
    check_prompts(server, version, model, render, reporter)
    return model


def _create(server: Server, body: Mapping[str, Any], reporter: Reporter) -> None:
    with reporter.task(f"create {body['model']}") as task:
        for status in server.create(body):
            task.advance(detail=status)


def _version_of(server: Server, name: str, model: Model, digest: str, today: str | None) -> str:
    """The version's name: of the same file and settings always the same, with its first date."""
    told = json.dumps([digest, *model.instructions()], sort_keys=True)
    mark = hashlib.sha256(told.encode()).hexdigest()[:6]
    stem = with_tag(name, "").lower()
    for one in server.models():
        if one.name.lower().startswith(stem) and one.name.endswith(f"-{mark}"):
            return one.name
    return with_tag(name, f"{today or _today()}-{mark}")


def _kept_name(server: Server, name: str, served: Stored | None, today: str | None) -> str:
    """A name by which what `name` is now can be found again; empty if it is nothing."""
    if served is None:
        return ""
    stem = with_tag(name, "").lower()
    for one in server.models():
        same = one.digest == served.digest and one.name.lower().startswith(stem)
        if same and one.name.lower() != name.lower():
            return one.name
    # Somebody else's model has the name: it gets a version, so that it can come back.
    kept = with_tag(name, f"{today or _today()}-{served.digest.removeprefix('sha256:')[:6]}")
    server.copy(name, kept)
    return kept


def _put_back(server: Server, name: str, previous: str, reporter: Reporter) -> None:
    if previous:
        server.copy(previous, name)
        reporter.note(f"{name} is {previous} again")
    elif server.find(name):
        server.delete(name)


def _remove(server: Server, version: str, reporter: Reporter) -> None:
    if server.find(version):
        server.delete(version)
        reporter.note(f"{version} is removed again")


@contextmanager
def _undone_if_it_fails(undo: Callable[[], None], reporter: Reporter) -> Iterator[None]:
    """Also where it is interrupted. What cannot be undone is said; the first fault is raised."""
    try:
        yield
    except BaseException:
        try:
            undo()
        except ForgeError as error:
            reporter.warn(f"could not be undone: {error.message}")
        raise


def _today() -> str:
    return f"{datetime.now(UTC):%Y%m%d}"
