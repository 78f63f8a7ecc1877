"""The bearer token: made here, shown once, kept as its SHA-256 alone."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from forge_cli.core.errors import ForgeError, UsageError


def make_token(file: Path) -> str:
    """A new token, whose hash is written to `file` with mode 600.

    Raises:
        UsageError: there is a file already.
    """
    token = f"forge_{secrets.token_urlsafe(32)}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{file}: is there already", "remove it for a new token") from None
    except OSError as error:
        raise ForgeError(f"{file}: {error.strerror}", "choose another --token-file") from None
    with os.fdopen(handle, "w") as stream:
        stream.write(f"sha256:{hash_of(token)}\n")
    return token


def read_hash(file: Path) -> str:
    """The hash in a token file.

    Raises:
        UsageError: others may read it, or it holds something else.
    """
    try:
        if file.stat().st_mode & 0o077:
            raise UsageError(f"{file}: others may read it", f"chmod 600 {file}")
        found = re.fullmatch(r"sha256:([0-9a-f]{64})", file.read_text().strip())
    except (OSError, UnicodeDecodeError):
        found = None
    if not found:
        raise UsageError(f"{file}: holds no hash of a token", "remove it: a new one is made")
    return found[1]


def hash_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def is_right(header: str, sha256: str) -> bool:
    """Whether an Authorization header carries the token, in a time that tells nothing of it."""
    scheme, _, token = header.partition(" ")
    given = hash_of(token.strip())
    return hmac.compare_digest(given, sha256) and scheme.lower() == "bearer"
