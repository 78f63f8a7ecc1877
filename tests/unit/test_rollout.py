"""A new version in the place of an old one: whatever goes wrong, the old one is still served."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_deploy import Recorder

from forge_cli import deploy
from forge_cli.core.errors import ForgeError, GateFailed, UsageError
from forge_cli.core.events import SILENT
from forge_cli.core.records import Message
from forge_cli.deploy import rollout, upload
from forge_cli.deploy.gguf_header import read_header
from forge_cli.deploy.ollama import Server
from forge_cli.deploy.registry import Registry
from forge_cli.deploy.smoke import Question
from forge_cli.deploy.template import Renderer, as_go
from forge_cli.export.gguf import write_gguf
from ollama_server import Faults, OllamaServer
from tiny_gguf import as_weights, random_weights, save_tokenizer, tiny_config

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEM = "Answer from the documents."
ASKED = Question((Message(role="system", content=SYSTEM), Message(role="user", content="f?")))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_WAIT", 0.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models that llama.cpp runs: two of chatml, one whose Jinja only looks like it."""
    root = tmp_path_factory.mktemp("models")
    config = tiny_config("llama", save_tokenizer(root / "tokenizer", "smollm"), num_hidden_layers=1)
    found = {}
    for seed, name in enumerate(("old", "new", "alike")):
        template = CHATML.replace("<|im_end|>\n", "<|im_end|>") if name == "alike" else CHATML
        (root / "tokenizer" / "chat_template.jinja").write_text(template)
        found[name] = write_gguf(
            root / f"{name}.gguf", config=config, tokenizer_dir=root / "tokenizer",
            weights=as_weights(random_weights(config, seed)), quant="q8_0", name=name,
            metadata={"forge.run": name, "general.license": "mit"},
        )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def running(files: dict[str, Path]) -> Iterator[OllamaServer]:
    with OllamaServer() as server:
        yield server


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "deployments.jsonl"


@pytest.fixture
def server(running: OllamaServer, files: dict[str, Path], log: Path) -> OllamaServer:
    """With `old` deployed as demo, and nothing else."""
    running.faults = Faults()
    running.models.clear()
    put(running.url, files["old"], log)
    running.blob(upload.digest_of(files["new"], SILENT)).unlink(missing_ok=True)
    return running


def put(url: str, gguf: Path, log: Path, **changes: Any) -> deploy.DeployResult:
    values: dict[str, Any] = {
        "name": "demo", "host": url, "out_dir": log.parent / "out", "system": SYSTEM,
        "parameters": {"temperature": 0}, "smoke": [ASKED], "registry": log, "source": gguf.stem,
    }  # fmt: skip
    return deploy.run(gguf, **(values | changes))


def answers(server: OllamaServer) -> str:
    """What `demo` says now, and of which file it is."""
    server.faults = Faults()
    with Server(server.url) as client:
        said = client.chat("demo", [{"role": "user", "content": "f?"}], {"num_predict": 8})
        assert said
        return str(client.show("demo").metadata["forge.run"])


def test_a_version_takes_the_name_and_the_old_one_stays(
    server: OllamaServer, files: dict[str, Path], log: Path
) -> None:
    (before,) = server.models.keys() - {"demo:latest"}
    result = put(server.url, files["new"], log)
    assert server.models.keys() == {"demo:latest", before, result.version}
    assert (result.previous, result.uploaded) == (before, True)
    assert server.models["demo:latest"].license == "mit"
    assert answers(server) == "new"
    order = [line for line in server.requests if "/api/c" in line][-3:]
    assert order[-1] == "POST /api/chat" and "POST /api/copy" in order[0:2]

    served = {v.name: (v.served, v.entry and v.entry.source) for v in
              deploy.versions("demo", host=server.url, registry=log)}  # fmt: skip
    assert served == {before: (False, "old"), result.version: (True, "new")}

    assert deploy.roll_back("demo", host=server.url, registry=log) == before
    assert answers(server) == "old"
    with pytest.raises(ForgeError, match="no version before"):
        deploy.roll_back("demo", host=server.url, registry=log)
    assert put(server.url, files["new"], log).version == result.version
    assert answers(server) == "new"
    actions = [(e.action, e.version) for e in Registry(log).entries(server.url, "demo:latest")]
    assert actions[-2:] == [("rolled back", before), ("deployed", result.version)]


SAYS_NOTHING_LIKE_IT = replace(ASKED, expected=("def f(x): return x",))
FAULTS: dict[str, tuple[Callable[[Faults], object], dict[str, Any], str]] = {
    "dies mid-upload": (lambda f: setattr(f, "drop_upload_after", 100_000), {}, "broke off"),
    "wrong digest": (lambda f: setattr(f, "spoil_upload", True), {}, "digest mismatch"),
    "full disk": (lambda f: setattr(f, "full_after", 100_000), {}, "no space left on device"),
    "error mid-stream": (
        lambda f: setattr(f, "create_error_after", "parsing GGUF"), {}, "no space left on device",
    ),
    "stops mid-stream": (lambda f: setattr(f, "create_stops_after", "parsing GGUF"), {}, "ended"),
    "too old": (lambda f: setattr(f, "version", "0.5.4"), {}, "0.5.4 is too old"),
    "forgets the system": (lambda f: f.forget.add("system"), {}, "another system prompt"),
    "answers nothing": (lambda f: setattr(f, "silent", True), {}, "with nothing"),
    "dies at a question": (lambda f: setattr(f, "drop_chat", True), {}, "broke off"),
    "wrong answers": (
        lambda f: None, {"smoke": [SAYS_NOTHING_LIKE_IT]}, "0 of 1 smoke answers hold",
    ),
    "refuses the name": (lambda f: f.status.update({"/api/copy": 500}), {}, "an injected fault"),
    "names another": (lambda f: setattr(f, "deaf_copy", True), {}, "is not demo:2"),
    "lists nothing": (lambda f: f.status.update({"/api/tags": 500}), {}, "an injected fault"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_leaves_the_old_model_served(
    server: OllamaServer, files: dict[str, Path], log: Path, fault: str
) -> None:
    there = dict(server.models)
    break_it, changes, match = FAULTS[fault]
    break_it(server.faults)
    with pytest.raises(ForgeError, match=match) as caught:
        put(server.url, files["new"], log, **changes)
    assert caught.value.exit_code == (3 if isinstance(caught.value, GateFailed) else 1)
    assert "\n" not in caught.value.message and caught.value.hint
    assert answers(server) == "old"
    assert {n: m.id for n, m in server.models.items()} == {n: m.id for n, m in there.items()}
    assert Registry(log).entries(server.url, "demo:latest")[-1].action == "refused"


def test_interrupted_before_the_name_moves(
    server: OllamaServer, files: dict[str, Path], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rollout, "ask", interrupt)
    there = set(server.models)
    with pytest.raises(KeyboardInterrupt):
        put(server.url, files["new"], log)
    assert set(server.models) == there and answers(server) == "old"


def test_an_upload_that_breaks_is_tried_again(
    server: OllamaServer, files: dict[str, Path], log: Path
) -> None:
    server.faults.drop_upload_after, server.faults.drops = 100_000, 2
    server.faults.slow = 0.01
    recorder = Recorder()
    assert put(server.url, files["new"], log, reporter=recorder).uploaded
    assert sum("trying again" in line for line in recorder.warnings) == 2
    assert answers(server) == "new"


def test_a_silent_server_is_given_up(server: OllamaServer, files: dict[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with Server(url, timeout=0.2) as client, pytest.raises(ForgeError, match="broke off"):
            client.has_blob("sha256:" + "0" * 64)


def test_a_server_that_renders_otherwise_gets_a_template(
    server: OllamaServer, files: dict[str, Path], log: Path
) -> None:
    recorder = Recorder()
    result = put(server.url, files["alike"], log, reporter=recorder)
    assert any("where training rendered" in note for note in recorder.notes)
    assert answers(server) == "alike"
    kept = server.models["demo:latest"].template
    assert kept == as_go(Renderer(read_header(files["alike"])))
    assert f'TEMPLATE """{kept}"""' in result.modelfile.read_text()
    again = put(server.url, files["alike"], log)
    assert again.version == result.version and "TEMPLATE" in again.modelfile.read_text()

    server.faults.version = "0.11.4"
    recorder = Recorder()
    put(server.url, files["new"], log, reporter=recorder)
    assert any("does not show how it renders" in line for line in recorder.warnings)


def test_a_model_of_somebody_else_gets_a_version(
    server: OllamaServer, files: dict[str, Path], log: Path
) -> None:
    (before,) = server.models.keys() - {"demo:latest"}
    del server.models[before]
    result = put(server.url, files["new"], log)
    assert result.previous in server.models and result.previous != result.version
    assert deploy.roll_back("demo", host=server.url, registry=log) == result.previous
    assert answers(server) == "old"


def test_the_oldest_versions_go(server: OllamaServer, files: dict[str, Path], log: Path) -> None:
    made = [
        put(server.url, files["new"], log, keep=2, parameters={"seed": seed}).version
        for seed in range(3)
    ]
    assert server.models.keys() == {"demo:latest", *made[1:]}
    removed = [e for e in Registry(log).entries(server.url, "demo:latest") if e.action == "removed"]
    assert len(removed) == 2
    # What is gone cannot be gone back to.
    deploy.roll_back("demo", host=server.url, registry=log)
    with pytest.raises(ForgeError, match="no longer has"):
        deploy.roll_back("demo", host=server.url, registry=log)


def test_what_there_is_nothing_of(server: OllamaServer, log: Path) -> None:
    for call in (deploy.roll_back, deploy.versions):
        with pytest.raises(UsageError, match="has no such model"):
            call("nobody", host=server.url, registry=log)


def test_the_registry_outlives_a_broken_line(log: Path) -> None:
    registry = Registry(log)
    registry.add("deployed", "u", "n:latest", "n:1", previous="n:0")
    with open(log, "a") as stream:
        stream.write('{"time": "20')
    assert [e.version for e in registry.entries("u", "n:latest")] == ["n:1"]
    assert registry.served_before("u", "n:latest", "n:1") == "n:0"


def test_no_room_is_said_before_the_upload(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path))
    upload.check_room("http://127.0.0.1:11434", 1 << 20)
    with pytest.raises(ForgeError, match="GB are free, the model needs"):
        upload.check_room("http://127.0.0.1:11434", 1 << 60)
    upload.check_room("http://10.0.0.1:11434", 1 << 60)  # the other machine's disk is not ours


def test_the_go_template_renders_as_jinja_does(files: dict[str, Path]) -> None:
    render = Renderer(read_header(files["old"]))
    odd = replace(render, header=replace(render.header, template="{{ messages[0].content }}"))
    assert as_go(odd) is None, "it forgets turns"
    template = as_go(render)
    assert template and json.dumps("<|im_end|>\n<|im_start|>user\n") in template
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    gemma = replace(render, header=replace(render.header, template=refuses + CHATML))
    said = gemma([{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}])
    assert "<|im_start|>user\nS\nQ<|im_end|>" in said, "as training and llama.cpp have it"
    turns = [{"role": "user", "content": "Q"}]
    assert gemma(turns) == render(turns)


def test_the_test_server_answers_a_bad_copy_as_ollama_does(server: OllamaServer) -> None:
    reply = httpx.post(f"{server.url}/api/copy", json={"source": "nobody", "destination": "x"})
    assert (reply.status_code, reply.json()["error"]) == (404, 'model "nobody" not found')
