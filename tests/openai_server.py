"""A real HTTP server that speaks /v1/chat/completions, and breaks in the ways that they do."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[Any], str]  # of messages, or of a whole request


class OpenAIServer:
    """Answers chats by a function; `faults` holds what the next requests meet instead.

    A fault is an HTTP status, or "close" (the connection ends half-way), "hang" (no answer
    until the client goes away), "junk" (no JSON), "empty" (JSON without choices); or status,
    body and headers.
    """

    def __init__(self, answer: Answer, *, whole: bool = False) -> None:
        """`whole`: the function gets the request's body in place of its messages."""
        self.answer, self.whole = answer, whole
        self.faults: deque[Any] = deque()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self._now = 0
        self.gate: threading.Barrier | None = None
        self._lock = threading.Lock()
        self._released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.handle(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with self._lock:
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            fault = self.faults.popleft() if self.faults else None
        try:
            if self.gate is not None:
                self.gate.wait(timeout=30)
            self._reply(request, body, fault)
        finally:
            with self._lock:
                self._now -= 1

    def _reply(self, request: BaseHTTPRequestHandler, body: dict[str, Any], fault: Any) -> None:
        if fault == "hang":
            self._released.wait(timeout=30)
            return
        if isinstance(fault, tuple):
            status, value, *headers = fault
            self._send(request, status, json.dumps(value).encode(), *(headers or [{}]))
        elif isinstance(fault, int):
            self._send(request, fault, b'{"error": {"message": "as told"}}', {"Retry-After": "0"})
        elif fault == "junk":
            self._send(request, 200, b"<html>", {})
        elif fault == "empty":
            self._send(request, 200, b'{"choices": []}', {})
        else:
            text = self.answer(body if self.whole else body["messages"])
            if body.get("stream"):
                self._stream(request, text)
                return
            value = {
                "choices": [{"message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5},
            }
            data = json.dumps(value).encode()
            if fault == "close":
                self._send(request, 200, data, {}, cut=len(data) // 2)
            else:
                self._send(request, 200, data, {})

    def _stream(self, request: BaseHTTPRequestHandler, text: str) -> None:
        """An event for each word; as llama-server does, a role before them, [DONE] after them."""
        deltas = [{"role": "assistant", "content": None}, *({"content": w} for w in text.split())]
        request.send_response(200)
        request.send_header("Content-Type", "text/event-stream")
        request.end_headers()
        for delta in deltas:
            data = json.dumps({"choices": [{"index": 0, "delta": delta}]})
            request.wfile.write(f"data: {data}\n\n".encode())
            request.wfile.flush()
        request.wfile.write(b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n')

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: dict[str, str],
        cut: int | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data[:cut])
        if cut is not None:
            request.wfile.flush()
            request.connection.close()
