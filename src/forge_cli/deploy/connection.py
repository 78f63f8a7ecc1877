"""The line to one Ollama server, on which whatever goes wrong comes out as one ForgeError."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import httpx
import ollama
from pydantic import ValidationError

from forge_cli.core.errors import ForgeError
from forge_cli.deploy.address import is_loopback

AGAIN = "run the same command again; what has arrived is not sent twice"
# A server may read gigabytes before it answers, but it accepts a connection at once.
_TIMEOUT = httpx.Timeout(600, connect=5)


class BrokenOff(ForgeError):
    """The connection ended before the answer did: worth another try."""

    transient = True


class Connection:
    """HTTP to the server at `url`: by the `ollama` client, and by `httpx` for what it lacks.

    Args:
        timeout: seconds that the server may be silent in the middle of an answer.
    """

    def __init__(self, url: str, timeout: float | None = None) -> None:
        self.url = url
        limit = _TIMEOUT if timeout is None else httpx.Timeout(timeout, connect=5)
        # A proxy of the environment has no place between this machine and itself.
        trust_env = not is_loopback(url)
        self._client = ollama.Client(host=url, timeout=limit, trust_env=trust_env)
        key = os.environ.get("OLLAMA_API_KEY")  # the ollama client sends it by itself
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, timeout=limit, trust_env=trust_env, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()
        self._client.close()  # type: ignore[no-untyped-call]

    def version(self) -> str:
        """The server's version.

        Raises:
            ForgeError: nothing answers at the URL, or what answers is no Ollama.
        """
        try:
            answer = self._http.get("/api/version")
        except (httpx.TransportError, UnicodeError):  # UnicodeError: no host name at all
            raise ForgeError(
                f"no Ollama server at {self.url}",
                "start it with: ollama serve, then run the same command again",
            ) from None
        try:
            return str(answer.raise_for_status().json()["version"])
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError):
            raise ForgeError(
                f"{self.url} answers {answer.status_code}, but not as an Ollama server",
                "check --host",
            ) from None

    @contextmanager
    def _speaking(self, doing: str) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            raise self._refused(doing, error.response.text, error.response.status_code) from None
        except ollama.ResponseError as error:
            raise self._refused(doing, error.error, error.status_code) from None
        except (httpx.TransportError, ConnectionError) as error:
            cause = str(error) or type(error).__name__
            raise BrokenOff(f"{self.url}: {doing} broke off: {_one_line(cause)}", AGAIN) from None
        except (ValidationError, ValueError, AttributeError, TypeError, KeyError):
            raise ForgeError(
                f"{self.url}: {doing}: the answer is not what Ollama sends", "check --host"
            ) from None

    def _refused(self, doing: str, text: str, status: int) -> ForgeError:
        with suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        code = f" ({status})" if status > 0 else ""
        hint = "see the server's log; then run the same command again"
        if "no space left" in text:
            hint = "make room on the server: ollama list, then ollama rm NAME; then try again"
        return ForgeError(
            f"{self.url}: {doing} failed{code}: {_one_line(text) or 'no reason given'}", hint
        )


def _one_line(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else f"{line[:300]}…"
