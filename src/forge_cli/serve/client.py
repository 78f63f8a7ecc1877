"""What `forge jobs` asks a server; the same API as everybody's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import httpx

from forge_cli.core.errors import ForgeError

URL = "http://127.0.0.1:8421"


class Client:
    """A server at a URL, with the token in FORGE_TOKEN."""

    def __init__(self, url: str) -> None:
        token = os.environ.get("FORGE_TOKEN", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url
        try:
            self._http = httpx.Client(
                base_url=url, headers=headers, timeout=30, follow_redirects=False, trust_env=False
            )
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ForgeError(f"--url {url}: {error}", f"such as {URL}") from None

    def json(
        self, method: str, path: str, *, body: Any = None, key: str = "", **params: Any
    ) -> Any:
        """The answer's body; None if it has none.

        Args:
            body: sent as JSON. key: the request's Idempotency-Key.

        Raises:
            ForgeError: no server (transient), or it refuses.
        """
        given = {name: value for name, value in params.items() if value not in (None, "")}
        headers = {"Idempotency-Key": key} if key else {}
        return self._asked(method, path, params=given, json=body, headers=headers)

    def upload(self, name: str, rows: bytes) -> Any:
        """Send rows to train on; what the server knows of the file."""
        files = {"file": (name, rows, "application/jsonl")}
        return self._asked("POST", "/v1/files", data={"purpose": "fine-tune"}, files=files)

    def _asked(self, method: str, path: str, **how: Any) -> Any:
        try:
            answer = self._http.request(method, path, **how)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if answer.is_error:
            raise _refused(answer)
        return answer.json() if answer.content else None

    def blocks(self, path: str) -> Iterator[bytes]:
        """A file as it comes."""
        try:
            with self._http.stream("GET", path) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                yield from answer.iter_bytes()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def jobs(self, state: str, limit: int) -> Iterator[dict[str, Any]]:
        """The newest jobs, the newest first."""
        before, left = "", limit
        while left > 0:
            page = self.json("GET", "/jobs", state=state, before=before, limit=min(left, 200))
            yield from page["jobs"]
            left -= len(page["jobs"])
            before = page["next"]
            if not before:
                return

    def text(self, path: str) -> Iterator[str]:
        """A text as it comes."""
        try:
            with self._http.stream("GET", path) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                yield from answer.iter_text()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def events(self, job_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Kind and data of each message of a job, from its beginning on."""
        headers, kind = {"Accept": "text/event-stream"}, ""
        try:
            with self._http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refused(answer)
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        kind = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        yield kind, json.loads(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> ForgeError:
        fault = ForgeError(f"{self.url}: {error}", "start forge serve, or name its --url")
        fault.transient = True
        return fault


def _refused(answer: httpx.Response) -> ForgeError:
    try:
        told = answer.json()
        said = [told.get("title", ""), told.get("detail", "")]
        said += [f"{e.get('where')}: {e.get('what')}" for e in told.get("errors", [])]
        text, hint = ": ".join(filter(None, said)), told.get("hint", "")
    except (ValueError, AttributeError):
        text, hint = f"status {answer.status_code}", ""
    if answer.status_code == 401:
        hint = "put the token into FORGE_TOKEN"
    return ForgeError(text, hint or "see: forge jobs ls")
