"""Push what was exported to a Hugging Face hub: only when asked, in one commit, or not at all.

The weights are sent file by file, then everything appears by one commit: who looks at the
repository sees the old state or the new one. What has arrived is not sent again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Reporter

_AGAIN = "run the same again: what has arrived is not sent twice"
# These hold a vocabulary, in which any word may stand.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")


@dataclass(frozen=True)
class Upload:
    """What goes to the hub.

    Attributes:
        repo: OWNER/NAME.
        files: path in the repository → a file on this machine, or its bytes.
    """

    repo: str
    private: bool
    files: Mapping[str, Path | bytes]

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {
            name: len(file) if isinstance(file, bytes) else file.stat().st_size
            for name, file in self.files.items()
        }


def check_repo(repo: str) -> None:
    """Refuse what is no OWNER/NAME, before any work is done.

    Raises:
        UsageError: it is not.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo):
        raise UsageError(f"--push {repo}: not a repository of the hub", "write OWNER/NAME")


def check_token() -> None:
    """See that there is a token, without asking anyone whether it is good.

    Raises:
        ForgeError: there is none.
    """
    from huggingface_hub import get_token

    if not get_token():
        raise ForgeError(
            "no token for the hub", "hf auth login, with a token that may write, or set HF_TOKEN"
        )


def places(written: Sequence[Path]) -> dict[Path, str]:
    """Where each exported file or directory stands in the repository.

    GGUF files and an only directory at the top, where loaders look; of several directories each
    in one of its own.
    """
    folders = [path for path in written if path.is_dir()]
    several = len(folders) > 1
    return {
        path: path.name.rsplit("-", 1)[-1] + "/" if several and path.is_dir()
        else "" if path.is_dir() else path.name
        for path in written
    }  # fmt: skip


def plan_upload(
    repo: str,
    private: bool,
    written: Sequence[Path],
    card: str,
    *,
    base: str,
    local: Sequence[str],
) -> Upload:
    """Everything that goes up: the files, the directories' content, and the card.

    Args:
        base: the name that others know the base by; a PEFT adapter names it.
        local: paths of this machine that nobody else has to know.

    Raises:
        ForgeError: a file names one of them.
    """
    files: dict[str, Path | bytes] = {}
    for path, place in places(written).items():
        if path.is_file():
            files[place] = path
            continue
        for file in sorted(one for one in path.rglob("*") if one.is_file()):
            files[place + file.relative_to(path).as_posix()] = file
    for name, found in files.items():
        if Path(name).name == "adapter_config.json" and isinstance(found, Path):
            told = json.loads(found.read_text(encoding="utf-8"))
            if "base_model_name_or_path" in told:
                told["base_model_name_or_path"] = base
                files[name] = json.dumps(told, indent=2).encode()
    files["README.md"] = card.encode()
    for name, found in files.items():
        if Path(name).suffix in (".json", ".md") and Path(name).name not in _VOCABULARIES:
            text = found if isinstance(found, bytes) else found.read_bytes()
            if named := [path for path in local if path and path.encode() in text]:
                raise ForgeError(
                    f"{name}: names {named[0]}, a path of this machine", "take it out of that file"
                )
    return Upload(repo, private, files)


def push(
    upload: Upload, reporter: Reporter, *, endpoint: str | None = None, bars: bool = False
) -> str:
    """Send it; the address of the commit.

    Args:
        endpoint: of the hub (none: HF_ENDPOINT, else huggingface.co).
        bars: let the client draw its own progress bars, which know of each byte.

    Raises:
        ForgeError: no token, or one that may not; a public repository where a private one is
            asked for; the hub refuses, fails or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    check_token()
    api = HfApi(endpoint=endpoint, library_name="forge-cli")
    additions = [
        CommitOperationAdd(name, file if isinstance(file, bytes) else str(file))
        for name, file in upload.files.items()
    ]
    sizes = upload.sizes()
    with _told(upload.repo, api.endpoint), _bars(bars):
        api.whoami()
        api.create_repo(upload.repo, private=upload.private, exist_ok=True)
        there = api.model_info(upload.repo)
        _check_visibility(bool(there.private), upload, reporter)
        with reporter.task("uploading, MB", sum(sizes.values()) / 1e6) as task:
            for addition in additions:
                # The commit reads the file's head again, so its memory is not freed here.
                api.preupload_lfs_files(upload.repo, [addition], free_memory=False)
                name = addition.path_in_repo
                task.advance(sizes[name] / 1e6, name)
        old = _outdated([one.rfilename for one in there.siblings or ()], upload)
        if old:
            reporter.note(f"{upload.repo}: takes the place of {', '.join(old)}")
        done = api.create_commit(
            upload.repo,
            [*additions, *(CommitOperationDelete(name) for name in old)],
            commit_message="Export of forge",
        )
    return str(done.commit_url)


def _check_visibility(private: bool, upload: Upload, reporter: Reporter) -> None:
    """A repository that was there keeps its visibility, whatever is asked for."""
    if upload.private and not private:
        raise ForgeError(
            f"{upload.repo}: exists and is public",
            "give another name, make it private in its settings, or say --public",
        )
    if private and not upload.private:
        reporter.warn(f"{upload.repo}: exists and is private; it stays so")


def _outdated(there: Sequence[str], upload: Upload) -> list[str]:
    """Weights that loaders would read along with the new ones, since they take all they find."""
    folders = {name.rpartition("/")[0] for name in upload.files if name.endswith(".safetensors")}
    return [
        name
        for name in there
        if name.endswith((".safetensors", ".safetensors.index.json"))
        and name.rpartition("/")[0] in folders
        and name not in upload.files
    ]


@contextmanager
def _bars(shown: bool) -> Iterator[None]:
    from huggingface_hub import utils

    hub: Any = utils  # it names these functions in its documents, not to type checkers
    hide = not shown and not hub.are_progress_bars_disabled()
    if hide:
        hub.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            hub.enable_progress_bars()


@contextmanager
def _told(repo: str, endpoint: str) -> Iterator[None]:
    """Errors of the client as one line of cause and one of advice."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # The client's HTTP library has changed its name before; its errors are this one's parent.
    network: type[BaseException] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except OfflineModeIsEnabled:
        raise ForgeError(
            f"{endpoint}: HF_HUB_OFFLINE forbids to reach it", "unset HF_HUB_OFFLINE"
        ) from None
    except (OSError, RuntimeError, ValueError, network) as error:
        for cause in _causes(error):
            response = getattr(cause, "response", None)
            if isinstance(cause, HfHubHTTPError) and response is not None:
                raise _refused(repo, endpoint, response.status_code, cause) from None
            if isinstance(cause, network | ConnectionError):
                raise ForgeError(
                    f"{endpoint}: cannot be reached, or broke off: {_line(cause)}",
                    f"check the network; then {_AGAIN}",
                ) from None
        raise ForgeError(f"{repo}: upload failed: {_line(error)}", _AGAIN) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _refused(repo: str, endpoint: str, status: int, error: Exception) -> ForgeError:
    if status == 401:
        return ForgeError(
            f"{endpoint}: the token is refused", "hf auth login, with a token that may write"
        )
    if status in (403, 404):
        return ForgeError(
            f"{repo}: the token may not write there ({status})",
            "check OWNER, and that the token's role is write",
        )
    if status == 429 or status >= 500:
        return ForgeError(f"{endpoint}: failed with {status}", f"wait a while; then {_AGAIN}")
    return ForgeError(f"{repo}: the hub refuses: {_line(error)}", "see what it says")


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]


__all__ = ["Upload", "check_repo", "check_token", "places", "plan_upload", "push"]
