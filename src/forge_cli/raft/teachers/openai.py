"""A teacher behind an OpenAI-compatible endpoint: Ollama, LM Studio, mlx_lm.server, OpenAI …"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from forge_cli.core.errors import ForgeError
from forge_cli.core.records import Message
from forge_cli.raft.teachers import Completion, Usage

if TYPE_CHECKING:
    import httpx

_TRIES = 5
_LONGEST_WAIT = 60.0  # seconds
# What another try may mend.
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
# What no prompt will get past.
_FATAL = {401: "the key was refused", 403: "access was refused", 404: "no such model or path"}


class OpenAITeacher:
    """POST /chat/completions, several at once, again when the server is busy or gone.

    The key is read from OPENAI_API_KEY and sent nowhere but to `url`.
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
        self.usage = Usage()

    def complete(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        """See `Teacher.complete`. A prompt that fails five times is answered with its error."""
        try:
            asyncio.run(self._all(prompts, done))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        if prompts and self.usage.failed == len(prompts):
            raise ForgeError(
                f"{self.name} at {self.url}: {self.usage.errors[0]}",
                "is the server running, and is --teacher-url right?",
            )

    async def _all(
        self, prompts: Sequence[list[Message]], done: Callable[[int, Completion], None]
    ) -> None:
        import httpx

        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        waiting = iter(enumerate(prompts))
        async with httpx.AsyncClient(headers=headers, timeout=self.timeout) as client:

            async def work() -> None:
                for number, prompt in waiting:
                    found = await self._one(client, number, prompt)
                    self._count(found)
                    done(number, found)
                    # A server that never answered will not answer a thousand prompts either.
                    if self.usage.failed >= 3 * self.jobs and not self.usage.answers:
                        return

            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.jobs, len(prompts))):
                    group.create_task(work())
        for number, _ in waiting:
            found = Completion(error="given up: no answer to any prompt before it")
            self._count(found)
            done(number, found)

    async def _one(
        self, client: httpx.AsyncClient, number: int, prompt: list[Message]
    ) -> Completion:
        rng = random.Random(number)
        body = {
            "model": self.model,
            "messages": [message.model_dump() for message in prompt],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        error = ""
        for attempt in range(_TRIES):
            if attempt:
                self.usage.retries += 1
            found, error, pause = await self._try(client, body)
            if found is not None:
                return found
            if attempt < _TRIES - 1:
                wait = self.backoff * 2**attempt * (0.5 + rng.random())
                await asyncio.sleep(min(_LONGEST_WAIT, wait if pause is None else pause))
        return Completion(error=error)

    async def _try(
        self, client: httpx.AsyncClient, body: dict[str, Any]
    ) -> tuple[Completion | None, str, float | None]:
        """(answer, error, seconds that the server asks to wait)."""
        import httpx

        try:
            response = await client.post(f"{self.url}/chat/completions", json=body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ForgeError(f"{self.url}: {error}", "give --teacher-url http://HOST/v1") from None
        except httpx.TimeoutException:
            return None, f"no answer in {self.timeout:g} s", None
        except httpx.HTTPError as error:
            return None, f"{type(error).__name__}: {error}", None
        status = response.status_code
        if status in _FATAL:
            raise ForgeError(
                f"{self.name} at {self.url}: {_FATAL[status]} (HTTP {status}: {_said(response)})",
                "set OPENAI_API_KEY" if status in (401, 403) else "check the name and the URL",
            )
        if status in _PASSING:
            return None, f"HTTP {status}: {_said(response)}", _pause(response)
        if status != 200:
            return Completion(error=f"HTTP {status}: {_said(response)}"), "", None
        try:
            value = response.json()
            text = value["choices"][0]["message"]["content"]
            usage = value.get("usage") or {}
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            return None, f"no completion in its answer: {response.text[:80]!r}", None
        return (
            Completion(
                str(text or ""),
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


def _said(response: httpx.Response) -> str:
    return " ".join(response.text.split())[:120]


def _pause(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
