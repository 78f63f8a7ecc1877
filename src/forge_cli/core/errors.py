"""Every failure a user can meet.

    ForgeError          known failure, exit 1
    ├── UsageError      wrong flags, config or input kind, exit 2
    ├── Busy            another process has what is needed, exit 1
    ├── BadRecord       a line of JSONL that is not what it should be, exit 1
    └── GateFailed      a quality gate said no, exit 3
        └── PromptDiffers   llama.cpp renders the chat template otherwise than training, exit 3

Each carries a message (what is wrong, and where) and a hint (what to do next).
`cli/main.py` prints them as two lines; nothing else formats them.
"""

from __future__ import annotations


class ForgeError(Exception):
    """A failure that Forge understands: one line of cause, one line of advice."""

    exit_code = 1
    # Whether the same might work a little later: a server that does not answer, a lock.
    transient = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ForgeError):
    """The command line, the configuration or the kind of input is wrong."""

    exit_code = 2


class Busy(ForgeError):
    """Another process has what is needed, for now."""

    transient = True


class BadRecord(ForgeError):
    """A line of a JSONL stream cannot be read as the record that was expected."""


class GateFailed(ForgeError):
    """The work was done, and its result is not good enough to go on with."""

    exit_code = 3


class PromptDiffers(GateFailed):
    """An exported file's own template gives another prompt than training saw, in every type."""
