"""A git host on loopback: git's own http-backend behind TLS, and repositories that misbehave."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CERTIFICATE = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=host"
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"
_REFS = "application/x-git-upload-pack-advertisement"


def backend() -> str | None:
    """git's http-backend; None where it, or openssl for a certificate, is not installed."""
    git = shutil.which("git")
    if git is None or shutil.which("openssl") is None:
        return None
    where = subprocess.run([git, "--exec-path"], capture_output=True, text=True, check=True)
    return shutil.which("git-http-backend", path=where.stdout.strip())


class GitHost(ThreadingHTTPServer):
    """Attributes: asked: each path, with the Host it was asked by. certificate: to be trusted."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.over = folder, threading.Event()
        self.asked: list[tuple[str, str]] = []
        self.certificate = folder / "host.pem"
        key = folder / "host.key"
        subprocess.run(
            ["openssl", *_CERTIFICATE.split(), "-addext", _NAMES, "-keyout", str(key),
             "-out", str(self.certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def url(self, name: str, host: str = "localhost") -> str:
        return f"https://{host}:{self.server_port}/{name}"

    def handle_error(self, *_: object) -> None:
        """A client that does not trust us hangs up, as it should."""


class _Handler(BaseHTTPRequestHandler):
    server: GitHost

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"].partition(":")[0]))
        name = self.path.split("/")[1].removesuffix(".git")
        if name == "moved":
            self._say(302, Location=self.server.url(self.path[1:].replace("moved", "shop"),
                                                    "127.0.0.1"))  # fmt: skip
        elif name == "login":
            self._say(401, WWW_Authenticate='Basic realm="x"')
        elif name == "busy":
            self._say(503)
        elif name == "page":
            self._say(200, b"<p>Hello", Content_Type="text/html")
        elif name == "rubbish":
            self._say(200, os.urandom(3000), Content_Type=_REFS)
        elif name == "hangs":
            self.server.over.wait(60)
        else:
            self._git(b"")

    def do_POST(self) -> None:
        self._git(self.rfile.read(int(self.headers["Content-Length"])))

    def _say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _git(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        cgi = {
            "GIT_PROJECT_ROOT": str(self.server.folder), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }  # fmt: skip
        found = backend()
        assert found
        done = subprocess.run([found], input=body, env={**os.environ, **cgi}, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200").split()[0])
        self._say(status, content, **fields)

    def log_message(self, *_: object) -> None:
        pass


def make_repository(folder: Path) -> None:
    """`shop.git` with a branch `old`, which has another function."""
    work = folder / "work"
    _git(folder, "init", "-q", "-b", "main", str(work))
    for branch in ("old", "main"):
        (work / "shop.py").write_text(f"def {branch}_price(n):\n    return n * 2\n")
        _git(work, "checkout", "-q", "-B", branch)
        _git(work, "add", ".")
        _git(work, "commit", "-q", "-m", branch)
    _git(folder, "clone", "-q", "--bare", str(work), str(folder / "shop.git"))


def _git(where: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@t.example"]
    subprocess.run(["git", "-C", str(where), *who, *arguments], check=True)


@contextmanager
def git_host(folder: Path) -> Iterator[GitHost]:
    make_repository(folder)
    host = GitHost(folder)
    thread = threading.Thread(target=host.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.over.set()
        host.shutdown()
        host.server_close()
