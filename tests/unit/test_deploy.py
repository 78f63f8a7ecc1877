"""Deploying to a strict server over real HTTP, with the faults that real servers have."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from test_deploy_header import smollm2

from forge_cli import deploy
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT, Silent
from forge_cli.core.records import Message
from forge_cli.deploy import upload
from forge_cli.deploy.ollama import Server
from forge_cli.deploy.smoke import Question
from ollama_server import OllamaServer

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CAPITAL = "What is the capital city of France? Answer with its name."
SYSTEM = 'Answer from the documents.\nQuote them "word for word".'


class Recorder(Silent):
    """Keeps what a stage reports."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.done: dict[str, float] = {}
        self.details: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    @contextmanager
    def task(self, name: str, total: float | None = None) -> Iterator[Any]:
        recorder = self

        class Progress:
            def advance(self, amount: float = 1.0, detail: str = "") -> None:
                recorder.done[name] = recorder.done.get(name, 0) + amount / (total or 1)
                recorder.details.append(detail)

        yield Progress()


def write_gguf(path: Path, *, kind: str = "model", template: str = CHATML, size: int = 64) -> Path:
    """A GGUF with a three-token vocabulary and one tensor of `size` KB: parsed, never run."""
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "llama")
    writer.add_type(kind)
    writer.add_context_length(512)
    writer.add_token_list(["<unk>", "<|im_start|>", "<|im_end|>"])
    writer.add_eos_token_id(2)
    if template:
        writer.add_chat_template(template)
    values = np.random.default_rng(0).standard_normal(size * 256, dtype=np.float32)
    writer.add_tensor("token_embd.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with OllamaServer() as running:
        yield running


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "_WAIT", 0.0)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "model.q8_0.gguf")


def deploy_to(url: str, gguf: Path, **changes: Any) -> deploy.DeployResult:
    values: dict[str, Any] = {
        "name": "demo",
        "host": url,
        "out_dir": gguf.parent / "deploy",
        "system": SYSTEM,
        "parameters": {"temperature": 0.2, "seed": 20261123},
        "reporter": SILENT,
    }
    return deploy.run(gguf, **(values | changes))


def refused(server: OllamaServer, gguf: Path, match: str, code: int = 1) -> ForgeError:
    """Deploy and expect one clear line that names the kept Modelfile."""
    with pytest.raises(ForgeError, match=match) as caught:
        deploy_to(server.url, gguf)
    kept = gguf.parent / "deploy" / "Modelfile"
    assert kept.read_text().startswith("FROM ../model.q8_0.gguf\n")
    assert caught.value.message.endswith(f"the Modelfile is kept at {kept}")
    assert "\n" not in caught.value.message and caught.value.hint
    assert caught.value.exit_code == code
    return caught.value


def test_smollm2_is_uploaded_created_and_answers(server: OllamaServer, tmp_path: Path) -> None:
    question = Question((Message(role="user", content=CAPITAL),), ("Paris",))
    recorder = Recorder()
    values: dict[str, Any] = {
        "name": "me/smollm2:v1",
        "out_dir": tmp_path,
        "system": "You are a helpful AI assistant.",
        "smoke": [question],
        "reporter": recorder,
        "parameters": {"num_ctx": 1024, "temperature": 0},
    }
    result = deploy_to(server.url, smollm2(), **values)

    assert result.uploaded and result.modelfile == tmp_path / "Modelfile"
    (answer,) = result.answers
    assert answer.passed and "Paris" in answer.answer, answer
    assert recorder.warnings == []
    assert recorder.done["upload"] == pytest.approx(1)
    assert "using autodetected template chatml" in recorder.details
    assert (server.blobs / result.digest.replace(":", "-")).stat().st_size > 90e6

    client = ollama.Client(host=server.url)
    names = {model.model for model in client.list().models}
    assert names == {"me/smollm2:v1", result.version} and result.version.startswith("me/smollm2:2")
    assert {model.model for model in client.ps().models} == names
    debug = {"model": "me/smollm2:v1", "_debug_render_only": True}
    debug["messages"] = [{"role": "user", "content": "Hi"}]
    reply = httpx.post(f"{server.url}/api/chat", json=debug, timeout=60).json()
    assert reply["_debug_info"]["rendered_template"].startswith(
        "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\nHi"
    )

    again = deploy_to(server.url, smollm2(), **values)
    assert not again.uploaded and again.answers == result.answers
    assert again.version == result.version and again.previous == ""
    assert sum(request.startswith("POST /api/blobs") for request in server.requests) == 1
    with Server(server.url) as ours:
        ours.stop("me/smollm2:v1")
        assert ours.loaded() == []
        ours.load("me/smollm2:v1")
        assert len(ours.loaded()) == 2
        assert list(ours.pull("me/smollm2:v1")) == ["pulling manifest", "success"]
        with pytest.raises(ForgeError, match="pulling nobody failed: pull model manifest"):
            list(ours.pull("nobody"))


def test_the_server_keeps_what_the_modelfile_says(server: OllamaServer, gguf: Path) -> None:
    # This GGUF cannot be run, so the deployment ends at its smoke question.
    refused(server, gguf, r"the smoke prompt failed \(500\): .*llama-server ends: llama_model_load")
    (body,) = server.creates
    assert body["parameters"] == {
        "temperature": 0.2,
        "seed": 20261123,
        "num_ctx": 512,
        "stop": ["<|im_end|>"],
    }
    assert body["model"].startswith("demo:2") and body["system"] == SYSTEM
    assert server.models == {}, "a version that does not answer is taken away again"
    text = (gguf.parent / "deploy" / "Modelfile").read_text()
    for line in (
        "PARAMETER num_ctx 512",
        'PARAMETER stop "<|im_end|>"',
        "PARAMETER seed 20261123",
        f'SYSTEM """{SYSTEM}"""',
    ):
        assert f"\n{line}\n" in text


def test_no_server_keeps_the_modelfile(tmp_path: Path, gguf: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    out = tmp_path / "out"
    with pytest.raises(ForgeError) as caught:
        deploy_to(url, gguf, out_dir=out)
    assert caught.value.message == (
        f"no Ollama server at {url}; the Modelfile is kept at {out / 'Modelfile'}"
    )
    assert caught.value.hint == "start it with: ollama serve, then run the same command again"
    assert caught.value.exit_code == 1
    assert (out / "Modelfile").read_text().startswith("FROM ../model.q8_0.gguf\n")
    assert [path.name for path in out.iterdir()] == ["Modelfile"]


@pytest.mark.parametrize("host", ["http://nowhere.invalid:1", "http://" + "a" * 70 + ":1"])
def test_host_that_does_not_exist_is_no_server(gguf: Path, host: str) -> None:
    with pytest.raises(ForgeError, match="no Ollama server at"):
        deploy_to(host, gguf)


def test_dry_run_contacts_no_server(server: OllamaServer, gguf: Path) -> None:
    recorder = Recorder()
    result = deploy_to(server.url, gguf, dry_run=True, reporter=recorder)
    assert server.requests == []
    assert result.dry_run and not result.uploaded and result.answers == ()
    assert result.modelfile.read_text().startswith("FROM ../model.q8_0.gguf\n")
    said = "\n".join(recorder.notes)
    assert server.url in said and "demo" in said and result.digest[:19] in said


def test_error_in_the_middle_of_create(server: OllamaServer, gguf: Path) -> None:
    server.faults.create_error_after = "parsing GGUF"
    refused(server, gguf, "creating the model failed: no space left on device")
    assert server.models == {}


def test_create_that_ends_without_success(server: OllamaServer, gguf: Path) -> None:
    server.faults.create_stops_after = "parsing GGUF"
    refused(server, gguf, "ended after 'parsing GGUF', not success")


def test_bytes_that_change_on_the_way(server: OllamaServer, gguf: Path) -> None:
    server.faults.spoil_upload = True
    refused(server, gguf, r"the upload failed \(400\): digest mismatch, expected")
    assert "POST /api/create" not in server.requests


def test_connection_that_drops_during_the_upload_then_a_second_try(
    server: OllamaServer, tmp_path: Path
) -> None:
    gguf = write_gguf(tmp_path / "model.q8_0.gguf", size=8000)
    server.faults.drop_upload_after = 2_000_000
    refused(server, gguf, "the upload broke off")
    assert list(server.blobs.iterdir()) == []
    server.faults.drop_upload_after = None
    refused(server, gguf, "the smoke prompt failed")
    assert len(list(server.blobs.iterdir())) == 1


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("/api/version", "answers 500, but not as an Ollama server"),
        ("/api/blobs", r"asking for the blob failed \(500\)"),
        ("/api/create", r"creating the model failed \(500\): an injected fault"),
        ("/api/show", r"showing the model failed \(500\): an injected fault"),
        ("/api/chat", r"cannot render a prompt .* failed \(500\): an injected fault"),
    ],
)
def test_server_error_is_one_line(server: OllamaServer, gguf: Path, path: str, match: str) -> None:
    server.faults.status[path] = 500
    refused(server, gguf, match)


def test_something_else_on_the_port(server: OllamaServer, gguf: Path) -> None:
    with pytest.raises(ForgeError, match="answers 404, but not as an Ollama server"):
        deploy_to(f"{server.url}/elsewhere", gguf)


@pytest.mark.parametrize(
    ("field", "match"),
    [("parameters", "keeps temperature unset"), ("system", "keeps another system prompt")],
)
def test_server_that_forgets_what_was_sent(
    server: OllamaServer, gguf: Path, field: str, match: str
) -> None:
    server.faults.forget.add(field)
    refused(server, gguf, match)


def test_model_without_a_template_is_not_served(server: OllamaServer, tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "model.q8_0.gguf", template="")
    refused(server, gguf, "no chat template")


def test_empty_smoke_answer_is_a_failure(server: OllamaServer, gguf: Path) -> None:
    server.faults.silent = True
    refused(server, gguf, "answers a smoke question with nothing", code=3)


def test_an_adapter_is_not_sent(server: OllamaServer, tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "lora.gguf", kind="adapter")
    with pytest.raises(ForgeError, match="of kind adapter"):
        deploy_to(server.url, gguf)
    assert server.requests == []


def test_a_bad_name_writes_and_sends_nothing(server: OllamaServer, gguf: Path) -> None:
    with pytest.raises(UsageError, match="--name"):
        deploy_to(server.url, gguf, name="no spaces")
    assert server.requests == [] and not (gguf.parent / "deploy").exists()


def test_out_dir_that_cannot_be_written(server: OllamaServer, gguf: Path) -> None:
    with pytest.raises(ForgeError, match="cannot write"):
        deploy_to(server.url, gguf, out_dir=gguf / "below-a-file")
    assert server.requests == []


def test_context_beyond_the_model_is_warned_of(gguf: Path) -> None:
    recorder = Recorder()
    deploy_to("x", gguf, dry_run=True, parameters={"num_ctx": 4096}, reporter=recorder)
    assert recorder.warnings == [
        "num_ctx 4096 is beyond the 512 tokens that the model was made for"
    ]


def test_a_longrope_model_wants_a_long_context(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "phi.gguf", "phi3")
    writer.add_type("model")
    writer.add_context_length(131072)
    writer.add_rope_scaling_orig_ctx_len(4096)
    writer.add_token_list(["<|end|>"])
    writer.add_eos_token_id(0)
    writer.add_chat_template(CHATML)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    for num_ctx, warned in ((4096, True), (8192, False)):
        recorder = Recorder()
        told = {"dry_run": True, "parameters": {"num_ctx": num_ctx}, "reporter": recorder}
        deploy_to("x", tmp_path / "phi.gguf", **told)
        assert any("training used the long ones" in line for line in recorder.warnings) is warned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapters": {"a.gguf": "sha256:" + "0" * 64}}, "LoRA adapters are no longer supported"),
        ({"quantize": "q4_K_M"}, "create-time quantization is only supported for safetensors"),
        ({"files": {"/abs/m.gguf": "sha256:" + "0" * 64}}, "file path must be relative"),
        ({"files": {"m.gguf": "sha256:12"}}, "invalid digest format"),
        ({"files": {"m.bin": "sha256:" + "0" * 64}}, "blob not found for m.bin"),
        ({"files": {"m.gguf": "sha256:" + "0" * 64}}, "no such file or directory"),
        ({"files": None}, "neither 'from' or 'files' was specified"),
        ({"model": "no spaces"}, "invalid model name"),
    ],
)
def test_the_test_server_refuses_as_ollama_does(
    server: OllamaServer, change: dict[str, Any], message: str
) -> None:
    body = {"model": "demo", "files": {"m.gguf": "sha256:" + "0" * 64}} | change
    reply = httpx.post(f"{server.url}/api/create", json=body)
    assert message in reply.text
    assert server.models == {}


def test_the_stage_costs_the_command_line_nothing() -> None:
    code = (
        "import sys, forge_cli.deploy; "
        "sys.exit(bool({'ollama', 'httpx', 'gguf', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(
    "FORGE_TEST_OLLAMA" not in os.environ, reason="set FORGE_TEST_OLLAMA to a live server's URL"
)
def test_live_ollama(tmp_path: Path) -> None:
    url, name = os.environ["FORGE_TEST_OLLAMA"], "forge-test-deploy"
    question = Question((Message(role="user", content=CAPITAL),), ("Paris",))
    result = deploy_to(url, smollm2(), name=name, out_dir=tmp_path, smoke=[question])
    try:
        assert result.answers[0].answer.strip()
        assert not deploy_to(url, smollm2(), name=name, out_dir=tmp_path).uploaded
    finally:
        ollama.Client(host=url).delete(name)
