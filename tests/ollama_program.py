"""`ollama serve`, for tests: the strict server where OLLAMA_HOST says, until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys

from ollama_server import OllamaServer


def main() -> None:
    assert sys.argv[1:] == ["serve"], sys.argv
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    assert host == "127.0.0.1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with OllamaServer(int(port)):
            signal.pause()
    except OSError as error:
        sys.exit(f"Error: listen tcp {host}:{port}: {error.strerror}")


if __name__ == "__main__":
    main()
