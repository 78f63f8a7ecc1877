"""A teacher behind an OpenAI-compatible endpoint: Ollama, LM Studio, mlx_lm.server, OpenAI …"""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Message
from forge_cli.teachers import Completion, Usage

if TYPE_CHECKING:
    import httpx

    from forge_cli.models.sampling import Draw

_TRIES = 5
_LONGEST_WAIT = 60.0  # seconds
# What another try may mend.
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
# What no prompt will get past.
_FATAL = {401: "the key was refused", 403: "access was refused", 404: "no such model or path"}
_HERE = {"localhost", "127.0.0.1", "::1"}


class OpenAITeacher:
    """POST /chat/completions, several at once, again when the server is busy or gone.

    The key is read from OPENAI_API_KEY and sent nowhere but to `url`: never to Ollama, which
    asks for none, and never unencrypted to another machine.
    """

    def __init__(
        self,
        name: str,
        model: str,
        url: str,
        *,
        jobs: int = 4,
        timeout: float = 120.0,
        backoff: float = 0.5,
        max_tokens: int = 1024,
    ) -> None:
        """`backoff`: seconds before the second try; doubled for each after it, with jitter."""
        self.name, self.model, self.url = name, model, url.rstrip("/")
        self.jobs, self.timeout, self.backoff = jobs, timeout, backoff
        self.max_tokens = max_tokens
        self.extra: dict[str, Any] = {}  # fields of a request that only some servers know
        self.usage = Usage()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Beside the prompt, all that decides the answer: a name is a server's own affair."""
        asked = {"url": self.url, "temperature": 0, "max_tokens": self.max_tokens}
        return asked | self.extra

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`. A prompt that fails five times is answered with its error."""
        self._answer(prompts, [None] * len(prompts), done)

    def sample(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw],
        done: Callable[[int, Completion], None],
    ) -> None:
        """See `Sampler.sample`. The seed is asked for: whether it counts is the server's affair.

        A server that takes no temperature draws at its own.
        """
        self._answer(prompts, draws, done)

    def _answer(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw | None],
        done: Callable[[int, Completion], None],
    ) -> None:
        try:
            asyncio.run(self._all(prompts, draws, done))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _all(
        self,
        prompts: Sequence[list[Message]],
        draws: Sequence[Draw | None],
        done: Callable[[int, Completion], None],
    ) -> None:
        import httpx

        headers = self.headers()
        waiting = iter(enumerate(prompts))
        in_a_row = 0  # prompts that the server, not what they ask, was the end of
        async with httpx.AsyncClient(headers=headers, timeout=self.timeout) as client:

            async def work() -> None:
                nonlocal in_a_row
                for number, prompt in waiting:
                    found, lost = await self._one(client, number, prompt, draws[number])
                    in_a_row = in_a_row + 1 if lost else 0
                    self._count(found)
                    done(number, found)
                    # A server that has stopped will not answer a thousand prompts either.
                    if in_a_row >= 3 * self.jobs:
                        return

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.jobs, len(prompts))):
                    group.create_task(work())
        for number, _ in waiting:
            found = Completion(error="not asked: the server had stopped answering")
            self._count(found)
            done(number, found)

    def headers(self) -> dict[str, str]:
        """Of a request: the key, where the server may have it.

        Raises:
            UsageError: it would be sent unencrypted.
        """
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not key or self.name.startswith("ollama:"):
            return {}
        try:
            split = urlsplit(self.url)
            exposed = split.scheme == "http" and split.hostname not in _HERE
        except ValueError:
            exposed = False  # no address at all, which the first request says
        if exposed:
            raise UsageError(
                f"{self.url}: would send OPENAI_API_KEY unencrypted to another machine",
                "use https, or unset the key if that server asks for none",
            )
        return {"Authorization": f"Bearer {key}"}

    def body(self, prompt: list[Message], draw: Draw | None = None) -> dict[str, Any]:
        """Of a request for the greedy answer, or for a draw."""
        found = {
            "model": self.model,
            "messages": [message.model_dump() for message in prompt],
            "temperature": draw.temperature if draw else 0,
            "max_tokens": self.max_tokens,
            **self.extra,
        }
        return found | {"seed": draw.server_seed} if draw else found

    async def _one(
        self, client: httpx.AsyncClient, number: int, prompt: list[Message], draw: Draw | None
    ) -> tuple[Completion, bool]:
        """The answer, and whether the server is the reason that there is none."""
        rng = random.Random(number)
        body = self.body(prompt, draw)
        error = ""
        for attempt in range(_TRIES):
            if attempt:
                self.usage.retries += 1
            found, error, pause = await self._try(client, body)
            if found is not None:
                return found, False
            if attempt < _TRIES - 1:
                wait = self.backoff * 2**attempt * (0.5 + rng.random())
                await asyncio.sleep(min(_LONGEST_WAIT, wait if pause is None else pause))
        return Completion(error=error), True

    async def _try(
        self, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> tuple[Completion | None, str, float | None]:
        """(answer, error, seconds that the server asks to wait)."""
        import httpx

        try:
            # httpx limits each read: a server that drips must come to an end too.
            async with asyncio.timeout(self.timeout):
                response = await client.post(f"{self.url}/chat/completions", json=body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise ForgeError(f"{self.url}: {error}", "give --teacher-url http://HOST/v1") from None
        except (httpx.TimeoutException, TimeoutError):
            return None, f"no answer in {self.timeout:g} s", None
        except httpx.HTTPError as error:
            return None, f"{type(error).__name__}: {error}", None
        status, said = response.status_code, self.said(response)
        if status in _FATAL or _fault(response).get("code") == "insufficient_quota":
            reason = _FATAL.get(status, "the account is out of money")
            raise ForgeError(
                f"{self.name} at {self.url}: {reason} (HTTP {status}: {said})",
                "set OPENAI_API_KEY" if status in (401, 403) else "mend that and run it again",
            )
        if status in _PASSING:
            return None, f"HTTP {status}: {said}", _pause(response)
        if status == 400 and _leave_out(body, _fault(response).get("param")):
            return await self._try(client, body)
        if status != 200:
            return Completion(error=f"HTTP {status}: {said}"), "", None
        try:
            value = response.json()
            text = value["choices"][0]["message"]["content"] or ""
            usage = value.get("usage") or {}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return None, f"no completion in its answer: {said[:80]!r}", None
        return (
            Completion(
                str(text),
                int(usage.get("prompt_tokens") or 0),
                int(usage.get("completion_tokens") or 0),
            ),
            "",
            None,
        )

    def _count(self, found: Completion) -> None:
        usage = self.usage
        if found.error:
            usage.failed += 1
            usage.errors.append(found.error)
            return
        usage.answers += 1
        usage.prompt_tokens += found.prompt_tokens
        usage.completion_tokens += found.completion_tokens

    def said(self, response: httpx.Response) -> str:
        """What a server says, in short, without the key, which some repeat."""
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        text = " ".join(response.text.split())
        return (text.replace(key, "…") if key else text)[:120]


def _fault(response: httpx.Response) -> dict[str, Any]:
    """The `error` object of an answer; {} where there is none."""
    try:
        found = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _leave_out(body: dict[str, Any], name: object) -> bool:
    """Newer models take max_completion_tokens, and no temperature or seed: whether the body
    changed."""
    if name not in ("temperature", "max_tokens", "seed") or name not in body:
        return False
    value = body.pop(str(name))
    if name == "max_tokens":
        body["max_completion_tokens"] = value
    return True


def _pause(response: httpx.Response) -> float | None:
    """Retry-After, which is seconds or a date, in seconds; None where there is none."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
