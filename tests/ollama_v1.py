"""The OpenAI routes of the Ollama of the tests: llama-server's own, on the model's bytes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any

from ollama_create import Refused


def completions(handler: Any) -> None:
    """POST /v1/chat/completions, streamed as it comes."""
    body = handler._body()
    try:
        _, manifest = handler.ollama.find(body.get("model") or "")
    except Refused as refused:
        told = {"message": str(refused), "type": "not_found_error", "param": None, "code": None}
        handler._json({"error": told}, 404)
        return
    url = handler.ollama.runner(manifest).url + "/v1/chat/completions"
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    with closing(answer):
        handler.send_response(answer.status)
        handler.send_header("Content-Type", answer.headers["Content-Type"])
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while block := answer.read1(1 << 16):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
        handler.wfile.write(b"0\r\n\r\n")
