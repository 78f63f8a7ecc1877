"""The OpenAPI document against the server: schemathesis with all of its checks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from serving import serving

from forge_cli.serve.tokens import hash_of

TOKEN = "forge_fuzz"
# Never ends, so it has tests of its own: tests/serve/test_streams.py.
ENDLESS = "/events"
# What the document cannot say: that a file holds rows, and that no Ollama runs here.
BEYOND = """
[[operations]]
include-name = "POST /v1/files"
[operations.checks]
positive_data_acceptance.expected-statuses = ["2xx", "400"]
[[operations]]
include-name = "POST /v1/chat/completions"
[operations.checks]
not_a_server_error.expected-statuses = ["2xx", "4xx", "503"]
"""


def test_the_document_is_right(tmp_path: Path) -> None:
    with serving(tmp_path, token_sha256=hash_of(TOKEN)) as server:
        server.http.headers["Authorization"] = f"Bearer {TOKEN}"
        document = server.http.get("/openapi.json").json()
        options = document["components"]["schemas"]["FineTune"]["properties"]["options"]
        assert "steps" in options["properties"] and "execute" not in options["properties"]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                said = operation["responses"]
                refused = [said[s]["content"] for s in said if s.startswith("4")]
                form = "application/json" if path.startswith("/v1/") else "application/problem+json"
                assert all([*content] == [form] for content in refused)
                assert ("401" in said) == (path not in ("/healthz", "/readyz")), (method, path)

        job_id = server.start()["id"]
        server.store.append("l", job_id, "a line\n", 0)
        server.store.append("m", job_id, '{"step": 1, "loss": NaN}\n', 0)
        run = server.home / job_id / "run"
        (run / "eval").mkdir(parents=True)
        (run / "eval" / "report.html").write_text("<p>fine")
        server.http.post(f"/jobs/{server.start()['id']}/cancel")
        server.http.post(f"/jobs/{server.start()['id']}/pause")
        (tmp_path / "schemathesis.toml").write_text(BEYOND)
        program = Path(sys.executable).with_name("schemathesis")
        done = subprocess.run(
            [program, "run", f"{server.url}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}",
             "--exclude-path", ENDLESS, "--checks", "all", "--max-examples", "2", "--seed", "1",
             "--request-timeout", "10", "--continue-on-failure", "--no-color"],
            capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "generated" in done.stdout
        assert server.http.get("/readyz").status_code == 200
