"""The first command of a job on a git URL: a clone, from the host that was allowed and no other.

python -m forge_cli.serve.jobs.clone URL[#REF] FOLDER

It is a command like those of the pipeline, so that it ends with its worker, is cancelled like
them, and says on stderr, as JSON, how far it is and why it failed.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from forge_cli.core.errors import ForgeError

# Nothing else may be asked for: no helper programs, no questions, no local files by git. Large
# files stay pointers, as a repository may name another host for them.
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "https:ssh",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C",  # what it says is read here
}
_PATIENCE = 600.0  # seconds for all of it
_SILENCE = 60  # seconds without a byte
_PROGRESS = re.compile(r"Receiving objects: .*\((\d+)/(\d+)\)")
_PLACE = re.compile(r"^(unable to access|repository) '[^']*':? ?")

# What git says → what is wrong, what to do, and whether it can pass by itself.
_KNOWN = [
    (r"returned error: 3\d\d", "its server leads elsewhere, which is not followed",
     "give the address that it leads to", False),
    (r"repository '.*' not found|returned error: (403|404)|not be found", "no such repository",
     "check the address; a private one must be readable by git on the worker's machine", False),
    (r"could not read (Username|Password)|Authentication failed|Permission denied|error: 401",
     "its server asks who we are", "let git's credential store or ssh on the worker's machine "
     "know it", False),
    (r"Remote branch .* not found", "no such branch or tag", "check what stands behind the #",
     False),
    (r"[Cc]ertificate", "the certificate of its server is not trusted",
     "let git on the worker's machine trust it: http.sslCAInfo", False),
    (r"too slow", "its server sends nothing", "try again later", True),
    (r"returned error: (408|429|5\d\d)|Could not resolve|Failed to connect|Couldn't connect|"
     r"[Tt]imed out|Connection (refused|reset|closed)|Empty reply|early EOF|RPC failed|hung up|"
     r"unexpected disconnect|SSL_ERROR_SYSCALL|TLS connection was non-properly|transfer closed",
     "", "try again later", True),
]  # fmt: skip


class CloneFailed(ForgeError):
    """git could not clone.

    Attributes:
        transient: whether the same may work a little later.
    """

    def __init__(self, message: str, hint: str, *, transient: bool) -> None:
        super().__init__(message, hint)
        self.transient = transient


def folder_of(source: str, folder: Path) -> Path:
    """Where the clone of a git URL stands in the folder of a job; it has the repository's name."""
    path = source.partition("#")[0].rstrip("/")
    name = re.sub(r"[^\w.-]", "", path.rpartition("/")[2]).removesuffix(".git").lstrip(".")
    return folder / "source" / (name or "repo")


def clone(
    source: str, target: Path, *, silence: int = _SILENCE, patience: float = _PATIENCE
) -> None:
    """Clone `URL` or `URL#REF` to `target`, which is there as a whole or not at all.

    Args:
        source: a URL that was checked; REF is a branch or a tag.
        silence, patience: seconds without a byte, and altogether.

    Raises:
        CloneFailed: git says why.
    """
    url, _, ref = source.partition("#")
    new = target.with_name(f"{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    # A host that is allowed answers for itself alone: it may not send us to another one.
    settings = ["http.followRedirects=false", "http.lowSpeedLimit=1"]
    settings += [f"http.lowSpeedTime={silence}", "protocol.version=2"]
    flags = [part for setting in settings for part in ("-c", setting)]
    branch = ["--branch", ref] if ref else []
    # In this process's group, with which it ends.
    process = subprocess.Popen(
        ["git", *flags, "clone", "--progress", "--no-recurse-submodules", *branch, "--", url,
         str(new)],
        env={**os.environ, **_ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    try:
        said = list(_told(process.stderr, time.monotonic() + patience))
        code = process.wait()
    except TimeoutError:
        hint = "clone it yourself and give its folder"
        raise CloneFailed(
            f"{source}: not cloned in {patience:.0f} s", hint, transient=True
        ) from None
    finally:
        # What it has begun itself goes with the group, when this command is over.
        process.kill()
        process.stderr.close()
        process.wait()
    if code:
        raise _failed(source, said)
    if any("empty repository" in line for line in said):
        # So git takes any page, too, whose server is none of git's.
        shutil.rmtree(new, ignore_errors=True)
        raise CloneFailed(
            f"{source}: no repository, or an empty one", "check the address", transient=False
        )
    new.rename(target)


def _told(stream: IO[bytes], until: float) -> Iterator[str]:
    """What git says but for its progress, which goes on as that of a job."""
    for line in _lines(stream, until):
        if found := _PROGRESS.search(line):
            print(json.dumps({"progress": f"cloning: {found[1]}/{found[2]}"}), file=sys.stderr)
        elif (
            line.startswith(("fatal: ", "error: ", "ERROR: ", "remote: ", "warning: "))
            or "denied" in line
        ):
            yield line


def _lines(stream: IO[bytes], until: float) -> Iterator[str]:
    rest = b""
    while True:
        # By the clock: who holds the pipe may live longer than git itself.
        if not select.select([stream], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        block = os.read(stream.fileno(), 4096)
        if not block:
            break
        *lines, rest = re.split(rb"[\r\n]+", (rest + block)[-65536:])
        yield from (line.decode(errors="replace") for line in lines)
    yield rest.decode(errors="replace")


def _failed(source: str, said: list[str]) -> CloneFailed:
    text = "\n".join(said)
    last = next((line for line in reversed(said) if line.startswith("fatal: ")), "")
    own = _PLACE.sub("", last.removeprefix("fatal: "))
    own = "".join(c for c in own if c.isprintable())[:200] or "git gives no reason"
    for words, what, hint, transient in _KNOWN:
        if re.search(words, text):
            return CloneFailed(f"{source}: {what or own}", hint, transient=transient)
    return CloneFailed(
        f"{source}: git clone: {own}", "see that git can read it on the worker's machine",
        transient=False,
    )  # fmt: skip


def main() -> int:
    """Exit 0 when the clone is there, also from an attempt before, which had the same commit."""
    source, target = sys.argv[1], Path(sys.argv[2])
    if (target / ".git").exists():
        return 0
    print(json.dumps({"note": f"cloning {source}"}), file=sys.stderr)
    try:
        clone(source, target)
    except KeyboardInterrupt:
        return 130
    except (ForgeError, OSError) as error:
        if not isinstance(error, ForgeError):
            error = ForgeError(f"{source}: {error}", "install git, and look at the disk")
        told = {"error": error.message, "hint": error.hint, "transient": error.transient}
        print(json.dumps(told), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
