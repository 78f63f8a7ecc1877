"""Tokens that bind a second call to what the first one showed."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from forge_cli.core.errors import UsageError

SECONDS = 900.0  # a token's life
CALLS = 40  # of any tool, after which it is void


@dataclass
class _Token:
    bound: str
    until: float
    calls: int


class Confirmations:
    """Each token is for one tool with exactly its arguments, once, and not for long."""

    def __init__(
        self, *, seconds: float = SECONDS, calls: int = CALLS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._seconds, self._calls, self._clock = seconds, calls, clock
        self._tokens: dict[str, _Token] = {}

    def count(self) -> None:
        """A tool was called: tokens age by it."""
        for token in self._tokens.values():
            token.calls -= 1
        self._tokens = {name: one for name, one in self._tokens.items() if self._lives(one)}

    def issue(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """A token for this call."""
        name = secrets.token_urlsafe(9)
        self._tokens[name] = _Token(
            _bind(tool, arguments), self._clock() + self._seconds, self._calls
        )
        return name

    def redeem(self, name: str, tool: str, arguments: Mapping[str, Any]) -> None:
        """Use a token up.

        Raises:
            UsageError: it is unknown, used, too old, or of another call.
        """
        again = f"call {tool} without confirmation, show the user what it would do, and ask"
        token = self._tokens.get(name)
        if token is None or not self._lives(token):
            raise UsageError("confirmation: not known, used already, or too old", again)
        if token.bound != _bind(tool, arguments):
            raise UsageError("confirmation: was given for other arguments", again)
        del self._tokens[name]

    def _lives(self, token: _Token) -> bool:
        return token.calls > 0 and self._clock() < token.until


def _bind(tool: str, arguments: Mapping[str, Any]) -> str:
    return json.dumps([tool, arguments], sort_keys=True)
