"""Pushing to a hub: real client, strict server; all of it arrives, or nothing is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from forge_cli.core.config import Settings, resolve
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import Silent
from forge_cli.core.jsonl import write_records
from forge_cli.core.run_dir import RunDir
from forge_cli.export import hub
from forge_cli.models.resolve import hub_id, public_name
from forge_cli.pipeline.publishing import check_push, publish
from hub_server import READ_ONLY, TOKEN, HubServer
from tiny_train import example


class Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(f"warning: {message}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The server speaks LFS; and the client waits longer and longer between its tries.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    with HubServer() as found:
        yield found


COMPARED = {
    "base": 0.41, "tuned": 0.68, "difference": 0.27, "low": 0.18, "high": 0.36, "n": 48,
    "clusters": 12, "verdict": "better",
}  # fmt: skip
PARITY = {"positions": 612, "top1_agreement": 0.9, "mean_kl": 0.06, "max_kl": 1.2}
KEPT = {"share": 0.97, "low": 0.91, "high": 1.02, "n": 24, "clusters": 8, "bytes": 9}


def make_run(root: Path, **settings: Any) -> RunDir:
    """A run of a repository "ledger" that was trained, judged and exported."""
    own = Settings(**{"model": "smollm2-135m", **settings}).model_dump()
    run = RunDir.open(root / "secret-place" / "run", own, source=str(root / "clients" / "ledger"))
    rows = [example(1, question) for question in range(3)]
    write_records(rows, str(run.file("data", "examples.jsonl")))
    run.record(
        train={"steps": 40, "best_step": 35},
        eval={"raft": {"answer_f1": COMPARED}, "raft:reworded": {"answer_f1": COMPARED}},
        verdict={"outcome": "better", "reasons": ["given.answer_f1: 0.41 → 0.68"]},
        export={"parity.q4_k_m": PARITY, "retention.q4_k_m": KEPT},
    )
    run.finish("train")
    return run


def gguf(run: RunDir, quant: str = "q4_k_m", size: int = 300_000) -> Path:
    file = run.file("export", f"run-{quant}.gguf")
    file.write_bytes(bytes(n % 251 for n in range(size)))
    return file


def folder(run: RunDir, kind: str, **files: bytes) -> Path:
    found = run.path / "export" / f"run-{kind}"
    found.mkdir(parents=True)
    for name, content in files.items():
        (found / name.replace("__", ".")).write_bytes(content)
    return found


def test_a_file_and_its_card_arrive_in_one_commit(tmp_path: Path, server: HubServer) -> None:
    run, notes = make_run(tmp_path), Notes()
    file = gguf(run)
    address = publish(run, [file], notes, repo="me/ledger", endpoint=server.url)
    assert address.startswith(f"{server.url}/me/ledger/commit/")
    repo = server.repos["me/ledger"]
    assert repo.private and repo.commits == 1
    assert repo.files["run-q4_k_m.gguf"] == file.read_bytes()
    card = repo.files["README.md"].decode()
    assert card == (run.path / "export" / "README.md").read_text()
    said = "\n".join(notes.said)
    assert "run-q4_k_m.gguf (0.3 MB)" in said and "to me/ledger, private" in said
    assert "warning: weights can tell text that they were trained on" in said


def test_the_card_tells_a_stranger_what_was_measured_and_nothing_of_the_repository(
    tmp_path: Path, server: HubServer
) -> None:
    run = make_run(tmp_path)
    publish(run, [gguf(run), gguf(run, "q8_0")], Notes(), repo="me/x", endpoint=server.url)
    card = server.repos["me/x"].files["README.md"].decode()
    head = yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1])  # type: ignore[index]
    assert head == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct", "base_model_relation": "finetune",
        "license": "apache-2.0", "library_name": "gguf", "pipeline_tag": "text-generation",
        "tags": ["forge", "raft", "code", "gguf"],
    }  # fmt: skip
    assert "one repository, ledger." in card and "Better than its base on files" in card
    assert "90.0% of 612 positions, KL 0.06 | 97% [91%, 102%], 24 rows of 8 files |" in card
    assert "| run-q8_0.gguf | q8_0 | 0 MB | not compared | not measured |" in card
    assert card.count("0.410 → 0.680 | +0.270 [+0.180, +0.360] | better (48 rows, 12 files)") == 2
    assert "| a wording never trained on | answer f1 | 0.410" in card and "- *answer f1*: " in card
    assert "- adapters: qpissa, rank 16, scale 1\n" in card
    assert "kind of question: 3: value 3" in card
    assert "- optimiser steps: 40, the best of them 35" in card
    assert "ollama run hf.co/me/x:run-q4_k_m.gguf" in card and "--hf-file run-q8_0.gguf" in card
    assert "##begin_quote##" in card  # the system prompt that it was trained with
    private = [str(tmp_path), "clients", "secret-place", "value_1_0", "f1.py", "What is value"]
    assert not [word for word in private if word in card]


def test_what_was_not_measured_is_not_claimed(tmp_path: Path, server: HubServer) -> None:
    run = make_run(tmp_path, model="some/base")
    run.state["metrics"] = {"train": {"steps": 2}}
    run.state["source"] = "sha256:00"
    publish(run, [gguf(run)], Notes(), repo="me/x", endpoint=server.url)
    card = server.repos["me/x"].files["README.md"].decode()
    assert "nothing here says that it is better" in card and "Better" not in card
    assert "one repository, a private repository." in card and "held-out files, against" not in card
    assert "license_link: https://huggingface.co/some/base" in card
    run.record(verdict={"outcome": "worse", "reasons": []})
    publish(run, [gguf(run)], Notes(), repo="me/x", endpoint=server.url)
    assert "Do not use it" in server.repos["me/x"].files["README.md"].decode()


def test_directories_stand_where_their_loaders_look(tmp_path: Path, server: HubServer) -> None:
    run = make_run(tmp_path)
    mlx = folder(run, "mlx", model__safetensors=b"w" * 900, config__json=b"{}")
    publish(run, [mlx, gguf(run)], Notes(), repo="me/x", endpoint=server.url)
    repo = server.repos["me/x"]
    assert {"model.safetensors", "config.json", "run-q4_k_m.gguf", "README.md"} < set(repo.files)
    assert "mlx_lm.chat --model me/x\n" in repo.files["README.md"].decode()
    peft = folder(run, "peft", adapter_model__safetensors=b"a" * 900)
    publish(run, [mlx, peft], Notes(), repo="me/y", endpoint=server.url)
    names = set(server.repos["me/y"].files) - {".gitattributes", "README.md"}
    assert names == {"mlx/model.safetensors", "mlx/config.json", "peft/adapter_model.safetensors"}
    card = server.repos["me/y"].files["README.md"].decode()
    assert "hf download me/y --include 'mlx/*'" in card and "subfolder='peft'" in card


def test_old_weights_beside_new_ones_are_taken_out(tmp_path: Path, server: HubServer) -> None:
    run, notes = make_run(tmp_path), Notes()
    parts = {f"model-0000{n}-of-00002__safetensors": bytes([n]) * 800 for n in (1, 2)}
    old = folder(run, "mlx", model__safetensors__index__json=b"{}", **parts)
    publish(run, [old, gguf(run)], notes, repo="me/x", endpoint=server.url)
    for file in old.iterdir():
        file.unlink()
    (old / "model.safetensors").write_bytes(b"n" * 900)
    publish(run, [old], notes, repo="me/x", endpoint=server.url)
    names = set(server.repos["me/x"].files) - {".gitattributes", "README.md"}
    assert names == {"model.safetensors", "run-q4_k_m.gguf"}
    assert any("takes the place of model-00001-of-00002.safetensors" in line for line in notes.said)


def test_a_dry_run_contacts_nobody_and_needs_no_token(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    run, notes = make_run(tmp_path), Notes()
    check_push("me/x", dry_run=True)
    done = publish(
        run, [gguf(run)], notes, repo="me/x", private=False, dry_run=True, endpoint=server.url
    )
    assert done == "" and not server.requests
    assert (run.path / "export" / "README.md").read_text().startswith("---\nbase_model:")
    said = "\n".join(notes.said)
    assert "would push 2 files, 0 MB, to me/x, public" in said and "and that is everyone" in said
    with pytest.raises(ForgeError, match="no token"):
        check_push("me/x", dry_run=False)


@pytest.mark.parametrize("name", ["x", "me/", "/x", "me/x/y", "https://hub/me/x", "../x", ""])
def test_what_is_no_name_of_a_repository_is_refused_first(name: str) -> None:
    with pytest.raises(UsageError, match="not a repository of the hub"):
        check_push(name, dry_run=True)


def test_a_public_repository_does_not_get_what_is_to_be_private(
    tmp_path: Path, server: HubServer
) -> None:
    run, notes = make_run(tmp_path), Notes()
    publish(run, [gguf(run)], notes, repo="me/x", private=False, endpoint=server.url)
    assert not server.repos["me/x"].private
    before = dict(server.blobs)
    other = gguf(run, "q8_0", 400_000)
    with pytest.raises(ForgeError, match="exists and is public"):
        publish(run, [other], notes, repo="me/x", endpoint=server.url)
    assert server.blobs == before, "not a byte of it"
    publish(run, [other], notes, repo="me/private", endpoint=server.url)
    publish(run, [other], notes, repo="me/private", private=False, endpoint=server.url)
    assert server.repos["me/private"].private and "it stays so" in "\n".join(notes.said)


@pytest.mark.parametrize(
    ("repo", "token", "fail", "said"),
    [
        ("me/x", "hf_unknown", {}, "the token is refused"),
        ("me/x", READ_ONLY, {}, r"the token may not write there \(403\)"),
        ("you/x", TOKEN, {}, r"the token may not write there \(403\)"),
        ("me/x", TOKEN, {"POST /api/repos/create": [500]}, "failed with 500"),
        ("me/x", TOKEN, {"PUT /storage": [500] * 9}, "failed with 500"),
        ("me/x", TOKEN, {"PUT /storage": [403]}, r"may not write there \(403\)"),
        ("me/x", TOKEN, {"PUT /storage": [0] * 9}, "cannot be reached, or broke off"),
        ("me/x", TOKEN, {"POST /verify": [400]}, "the hub refuses"),
        ("me/x", TOKEN, {"/commit/": [500]}, "failed with 500"),
        ("me/x", TOKEN, {"/commit/": [0]}, "cannot be reached, or broke off"),
        ("me/x", TOKEN, {"validate-yaml": [401]}, "the token is refused"),
    ],
)
def test_what_goes_wrong_is_one_line_and_shows_nothing(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch,
    repo: str, token: str, fail: dict[str, list[int]], said: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", token)
    server.fail = {part: list(statuses) for part, statuses in fail.items()}
    run = make_run(tmp_path)
    with pytest.raises(ForgeError, match=said) as caught:
        publish(run, [gguf(run)], Notes(), repo=repo, endpoint=server.url)
    assert caught.value.exit_code == 1 and caught.value.hint
    assert "\n" not in caught.value.message and token not in caught.value.message
    assert not [one for one in server.repos.values() if one.commits]


def test_a_push_that_broke_off_goes_on_where_it_was(tmp_path: Path, server: HubServer) -> None:
    run = make_run(tmp_path)
    files = [gguf(run), gguf(run, "q8_0", 400_000)]
    server.fail = {"/commit/": [500]}
    with pytest.raises(ForgeError, match="failed with 500") as caught:
        publish(run, files, Notes(), repo="me/x", endpoint=server.url)
    assert "not sent twice" in caught.value.hint and len(server.puts) == 2
    publish(run, files, Notes(), repo="me/x", endpoint=server.url)
    assert len(server.puts) == 2 and server.repos["me/x"].commits == 1
    # One failure of the storage is the client's own to mend.
    server.fail = {"PUT /storage": [500]}
    publish(run, [gguf(run, "f16", 500_000)], Notes(), repo="me/x", endpoint=server.url)
    assert server.repos["me/x"].commits == 2


def test_a_hub_that_is_not_there(tmp_path: Path, server: HubServer) -> None:
    run = make_run(tmp_path)
    with pytest.raises(ForgeError, match=r"127.0.0.1:9: cannot be reached"):
        publish(run, [gguf(run)], Notes(), repo="me/x", endpoint="http://127.0.0.1:9")


def test_no_file_names_a_path_of_this_machine(tmp_path: Path, server: HubServer) -> None:
    base = tmp_path / "models" / "mine"
    base.mkdir(parents=True)
    run = make_run(tmp_path, model=str(base))
    told = json.dumps({"base_model_name_or_path": str(base), "r": 4}).encode()
    peft = folder(run, "peft", adapter_config__json=told, adapter_model__safetensors=b"a" * 600)
    publish(run, [peft], Notes(), repo="me/x", endpoint=server.url)
    files = server.repos["me/x"].files
    assert json.loads(files["adapter_config.json"]) == {"base_model_name_or_path": "mine", "r": 4}
    assert (peft / "adapter_config.json").read_bytes() == told, "here it is found by its path"
    assert str(tmp_path) not in files["README.md"].decode()
    (peft / "config.json").write_text(json.dumps({"_name_or_path": str(base)}))
    with pytest.raises(ForgeError, match=r"config.json: names .*mine, a path of this machine"):
        publish(run, [peft], Notes(), repo="me/x", endpoint=server.url)


def test_only_the_flag_pushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown setting push"):
        resolve({}, project=tmp_path, environ={"FORGE_PUSH": "me/x"})
    (tmp_path / "forge.yaml").write_text("push: me/x\n")
    with pytest.raises(UsageError, match="unknown setting push"):
        resolve({}, project=tmp_path, environ={})


def test_names_for_others(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    names = ["smollm2-135m", "org/name", str(tmp_path / "mine"), "models/x.gguf"]
    assert [public_name(n) for n in names] == ["smollm2-135m", "org/name", "mine", "x.gguf"]
    assert [hub_id(n) for n in names] == [
        "HuggingFaceTB/SmolLM2-135M-Instruct", "org/name", "", "",
    ]  # fmt: skip


def test_the_client_draws_no_bars_where_nobody_looks(
    tmp_path: Path, server: HubServer, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    run = make_run(tmp_path)
    upload = hub.plan_upload("me/x", True, [gguf(run)], "---\nlicense: mit\n---\n", base="b",
                             local=[])  # fmt: skip
    before = are_progress_bars_disabled()
    hub.push(upload, Notes(), endpoint=server.url)
    assert capfd.readouterr() == ("", "") and are_progress_bars_disabled() == before
