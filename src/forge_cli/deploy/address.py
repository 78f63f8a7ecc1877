"""Model names and server addresses, checked before anything is sent."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from forge_cli.core.errors import UsageError

_PORT = 11434
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_NAME_HINT = "a name is [namespace/]model[:tag] of letters, digits and _ - . such as my-repo:v1"


def check_name(name: str) -> str:
    """The name, if Ollama would take it: `[[host/]namespace/]model[:tag]`.

    Rules of `types/model/name.go`: each part starts with a letter, a digit or `_`; a
    namespace has no dot; 80 characters a part, 350 for the host. The tags `cloud`,
    `*-cloud` and `local` are refused: the server takes them for a place, not a version.

    Raises:
        UsageError: it breaks one of these, which is named.
    """
    path, tag = name, ""
    if name.rfind(":") > name.rfind("/"):
        path, _, tag = name.rpartition(":")
        if tag.lower() in {"cloud", "local"} or tag.lower().endswith("-cloud"):
            raise UsageError(
                f"--name {name}: Ollama reads the tag {tag} as a place", "use another tag"
            )
        _check_part(name, "tag", tag, _PART, 80)
    *above, model = path.split("/")
    _check_part(name, "model", model, _PART, 80)
    if above:
        namespace = above.pop()
        if "." in namespace:
            raise UsageError(f"--name {name}: the namespace {namespace} has a dot", _NAME_HINT)
        _check_part(name, "namespace", namespace, _PART, 80)
    if above:
        _check_part(name, "host", above.pop(), _HOST, 350)
    if above:
        raise UsageError(f"--name {name}: too many slashes", _NAME_HINT)
    return name


def full_name(name: str) -> str:
    """The name with its tag, which is `latest` where none is given."""
    return name if name.rfind(":") > name.rfind("/") else f"{name}:latest"


def with_tag(name: str, tag: str) -> str:
    """The same model under another tag."""
    return f"{full_name(name).rpartition(':')[0]}:{tag}"


def _check_part(name: str, kind: str, part: str, pattern: re.Pattern[str], longest: int) -> None:
    if not part:
        raise UsageError(f"--name {name!r}: the {kind} is empty", _NAME_HINT)
    if len(part) > longest:
        raise UsageError(f"--name {name}: the {kind} is over {longest} characters", _NAME_HINT)
    if not pattern.fullmatch(part):
        raise UsageError(f"--name {name}: the {kind} {part!r} is not a valid one", _NAME_HINT)


def server_url(host: str) -> str:
    """`host` as a full URL: `box`, `box:1234`, `:1234` and `http://box` all work.

    The defaults are those of OLLAMA_HOST: port 11434, but 80 or 443 after a scheme.

    Raises:
        UsageError: it is no address.
    """
    scheme, mark, rest = host.strip().partition("://")
    if not mark:
        scheme, rest = "http", host.strip()
    hint = "write it as http://127.0.0.1:11434"
    if scheme not in {"http", "https"}:
        raise UsageError(f"--host {host}: {scheme} is not http or https", hint)
    try:
        split = urlsplit(f"{scheme}://{rest}")
        port = split.port
    except ValueError as error:
        raise UsageError(f"--host {host}: not an address: {error}", hint) from None
    name = split.hostname or "127.0.0.1"
    if re.search(r"[^\w.:-]", name, re.ASCII) or split.query or split.fragment:
        raise UsageError(f"--host {host}: not an address", hint)
    if port is None:
        port = _PORT if not mark else {"http": 80, "https": 443}[scheme]
    shown = f"[{name}]" if ":" in name else name
    return f"{scheme}://{shown}:{port}{split.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    """Whether `url` points at this machine, where no proxy has a place in between."""
    name = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"
