"""A strict Hugging Face hub, for tests: the part of its API that an upload uses.

Large files go by the LFS protocol (batch, PUT, verify), small ones inside the commit. It holds
what arrives to the sizes and SHA-256 that were announced, and asks for a token everywhere.
Simpler than the hub: one user, one branch, no Xet, no multipart.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN, READ_ONLY, OWNER = "hf_writes", "hf_reads", "me"


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, message: str, **told: str) -> None:
        super().__init__(message)
        self.status, self.told = status, {"error": message, **told}


class HubServer:
    """The server, on a free port of 127.0.0.1, for the length of a `with` block.

    Attributes:
        fail: "METHOD path part" → statuses to answer with, one a request; 0: the connection is
            cut in the middle of the body.
        requests: "METHOD path", in order. puts: digests that were sent.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.fail: dict[str, list[int]] = {}
        self.requests: list[str] = []
        self.puts: list[str] = []

    def __enter__(self) -> HubServer:
        handler = type("Bound", (Handler,), {"hub": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        line = f"{self.command} {self.path.partition('?')[0]}"
        self.hub.requests.append(line)
        fault = next((self.hub.fail[part] for part in self.hub.fail if part in line), [])
        status = fault.pop(0) if fault else 200
        if status == 0:
            self.rfile.read(1000)
            self.close_connection = True
            return
        body = b"".join(self.body())
        try:
            if status != 200:
                raise Refused(status, "as the test wants it")
            found, code = self.route(self.command, self.path.partition("?")[0], body), 200
        except Refused as refused:
            found, code = refused.told, refused.status
        data = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        elif length := int(self.headers.get("Content-Length") or 0):
            yield self.rfile.read(length)

    def route(self, method: str, path: str, body: bytes) -> Any:
        if method == "PUT":  # to storage: the address itself is the permission
            return self.store(path.rsplit("/", 1)[1], body)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in (TOKEN, READ_ONLY):
            raise Refused(401, "Invalid credentials in Authorization header")
        name = "/".join(path.split("/")[3:5])
        if (method, path) == ("GET", "/api/whoami-v2"):
            return {"name": OWNER, "type": "user"}
        if method == "GET":
            repo = self.repo(name)
            files = [{"rfilename": file} for file in repo.files]
            return {"id": name, "private": repo.private, "sha": "0" * 40, "siblings": files}
        if token != TOKEN:
            raise Refused(403, "You don't have the rights to do that")
        if path == f"/api/models/{name}/commit/main":
            return self.commit(name, [json.loads(line) for line in body.splitlines()])
        return self.write(name, path, json.loads(body))

    def write(self, name: str, path: str, told: dict[str, Any]) -> Any:
        if path == "/api/repos/create":
            return self.create(told)
        if path == "/api/validate-yaml":
            return self.validate(told["content"])
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(path.removesuffix(".git/info/lfs/objects/batch")[1:], told)
        if path == "/verify":
            if len(self.hub.blobs[told["oid"]]) != told["size"]:
                raise Refused(400, "the size differs")
            return {}
        if path == f"/api/models/{name}/preupload/main":
            self.repo(name)
            return {"files": [preupload(file) for file in told["files"]]}
        raise Refused(404, f"no such path: {path}")

    def repo(self, name: str) -> Repo:
        if name not in self.hub.repos:
            raise Refused(404, "Repository not found")
        return self.hub.repos[name]

    def create(self, told: dict[str, Any]) -> Any:
        assert told["visibility"] in ("private", "public") and told.get("type", "model") == "model"
        if told["organization"] != OWNER:
            raise Refused(403, "You don't have the rights to create a model under that name")
        name = f"{OWNER}/{told['name']}"
        if name in self.hub.repos:
            raise Refused(409, "You already created it", url=f"{self.hub.url}/{name}")
        self.hub.repos[name] = Repo(told["visibility"] == "private", {".gitattributes": b""})
        return {"url": f"{self.hub.url}/{name}"}

    def validate(self, text: str) -> Any:
        head = yaml.safe_load(text.split("---\n")[1])
        if not isinstance(head, dict) or not isinstance(head.get("license"), str):
            raise Refused(400, "no metadata")
        return {"errors": [], "warnings": []}

    def batch(self, name: str, told: dict[str, Any]) -> Any:
        self.repo(name)
        assert told["operation"] == "upload" and told["hash_algo"] == "sha256"
        objects = []
        for one in told["objects"]:
            found = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.blobs:
                found["actions"] = {
                    "upload": {"href": f"{self.hub.url}/storage/{one['oid']}"},
                    "verify": {"href": f"{self.hub.url}/verify"},
                }
            objects.append(found)
        return {"transfer": "basic", "objects": objects}

    def store(self, oid: str, body: bytes) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "the content is not that of the digest")
        self.hub.blobs[oid] = body
        self.hub.puts.append(oid)
        return {}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> Any:
        repo = self.repo(name)
        files = dict(repo.files)
        assert lines[0]["key"] == "header" and lines[0]["value"]["summary"]
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"], validate=True)
            elif line["key"] == "lfsFile":
                blob = self.hub.blobs.get(value["oid"])
                if blob is None or len(blob) != value["size"]:
                    raise Refused(400, f"{value['path']}: nothing of that digest has arrived")
                files[value["path"]] = blob
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise Refused(400, f"unknown operation {line['key']}")
        repo.files, repo.commits = files, repo.commits + 1
        return {"commitUrl": f"{self.hub.url}/{name}/commit/{'1' * 40}", "commitOid": "1" * 40}


def preupload(file: dict[str, Any]) -> dict[str, Any]:
    sample = base64.b64decode(file["sample"], validate=True)
    assert len(sample) == min(512, file["size"])
    large = file["path"].endswith((".gguf", ".safetensors"))
    return {
        "path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False,
    }  # fmt: skip
