"""A process that reads an upload through, so that its server answers others meanwhile.

python -m forge_cli.serve.jobs.checker DESCRIPTOR MOST_ROWS

Prints one JSON object: `checked` what was found, `wrong` the message and the hint of the first
fault, or `failed` the kind of an error of its own. Ends at once when its standard input does: that
is a pipe from the server, which the system closes however the server dies.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from typing import Any

from forge_cli.core.errors import UsageError
from forge_cli.serve.jobs.niceness import be_nice
from forge_cli.serve.jobs.rows import check_rows

MEMORY = 1 << 30  # bytes of address space, of which good and bad files need a tenth
_BUFFER = 256 << 10  # bytes that are read at a time


class Apart(io.RawIOBase):
    """A file from its beginning, at a place of its own: a descriptor's is the server's too."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.at = descriptor, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As RawIOBase's."""
        count = os.preadv(self.descriptor, [buffer], self.at)
        self.at += count
        return count


def main() -> int:
    """Exit 0 whenever something is said."""
    descriptor, most_rows = map(int, sys.argv[1:])
    be_nice()
    _limit_memory()
    threading.Thread(target=_end_with_server, daemon=True).start()
    told: dict[str, Any]
    try:
        found = check_rows(io.BufferedReader(Apart(descriptor), _BUFFER), most_rows)
        told = {"checked": found.model_dump()}
    except UsageError as error:
        told = {"wrong": [error.message, error.hint]}
    except Exception as error:  # whose message may hold what was uploaded
        told = {"failed": type(error).__name__}
    sys.stdout.write(json.dumps(told))
    return 0


def _limit_memory() -> None:
    if sys.platform == "linux":  # elsewhere the limit counts what all processes share, or nothing
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _end_with_server() -> None:
    while os.read(0, 1):
        pass
    os._exit(137)


if __name__ == "__main__":
    sys.exit(main())
