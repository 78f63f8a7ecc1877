"""`forge ask`: what is found, what answers, what of its quotes holds, and corrections."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forge_cli import ask, pipeline
from forge_cli.ask.correction import correct, keep
from forge_cli.ask.quotes import check
from forge_cli.cli import ask as command
from forge_cli.core.answer_form import ABSTAIN, BEGIN, END, render
from forge_cli.core.config import Settings, resolve
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT
from forge_cli.core.jsonl import read_records
from forge_cli.core.records import Answer, Chunk, Document, Preference
from forge_cli.deploy.registry import Registry
from forge_cli.mine.history import git
from forge_cli.models.adapters import AdapterConfig
from forge_cli.pipeline import asking
from openai_server import OpenAIServer
from tiny_train import save_model

PARSE = 'def parse(path):\r\n    """Reads naïve 日本語."""\r\n    return load(path)\r\n'
TWICE = "x = 1\ny = 2\n\n\ndef twice(n):\n    return n * 2  # y = 2\n"


def quoted(
    *quotes: str, final: str = "It reads.", reason: str = "`parse` is in document [2]."
) -> str:
    marked = "".join(f"\n{BEGIN}\n{quote}\n{END}" for quote in quotes)
    return f"##Reason: {reason}{marked}\n##Answer: {final}"


def chunk(path: str, text: str, line: int = 1) -> Chunk:
    return Chunk(
        id=path, repo="r", path=path, language="python", start_byte=0, end_byte=len(text),
        start_line=line, end_line=line + text.count("\n"), kind="function", text=text,
    )  # fmt: skip


SHOWN = [chunk("a.py", TWICE), chunk("b.py", f"\n{PARSE}", 40), chunk("c.py", f"# c\n{TWICE}", 7)]


class Says:
    """An answerer that says what it is told to."""

    name = "told"

    def __init__(self, text: str, room: int = 10) -> None:
        self.text, self.room = text, room
        self.prompts: list[Any] = []

    def has_room(self, messages: Any) -> bool:
        return messages[1].content.count("\n\n[") < self.room

    def answer(self, messages: Any, documents: Any) -> Any:
        from forge_cli.ask.answerers import Written

        self.prompts.append(messages)
        return Written(self.text, 5)


def test_quotes_have_the_lines_of_the_file() -> None:
    text = quoted('def parse(path):\r\n    """Reads naïve 日本語."""', "    return load(path)")
    found = check(text, SHOWN)
    assert [str(quote) for quote in found.quotes] == ["b.py:41-42", "b.py:43-43"]
    assert (found.final, found.struck, found.abstained) == ("It reads.", (), False)
    # Of two documents that hold it the one that the reason names, else the first.
    for reason, at in (("[3]", "c.py:9-9"), ("[9]", "a.py:2-2"), ("", "a.py:2-2")):
        found = check(quoted("y = 2", reason=reason), SHOWN)
        assert str(found.quotes[0]) == at
    assert str(check(quoted("\n\ndef twice(n):"), SHOWN).quotes[0]) == "a.py:5-5"


@pytest.mark.parametrize(
    ("written", "final"),
    [
        (quoted("def parse(p):"), "It reads."),
        (f"It is {BEGIN}def parse(p):{END}.", "It is \n[not in the documents: “def parse(p):”]."),
        (f"##Reason: a\n{BEGIN}\ndef parse(p):\n##Answer: It reads.", "It reads."),
        (quoted("def parse(p):\n##Answer: no"), "It reads."),
        (f"##Answer: {BEGIN} def parse(p):", "[not in the documents: “def parse(p):”]"),
    ],
)  # fmt: skip
def test_a_false_quote_is_struck(written: str, final: str) -> None:
    reply = ask.run("What?", SHOWN, Says(written))
    told = reply.as_dict()
    assert told["quotes"] == [] and told["final"] == final
    assert len(told["struck"]) == 1 and "def parse(p):" in told["struck"][0]
    assert "[not in the documents: “def parse(p):" in told["answer"]
    assert BEGIN not in told["answer"] and not reply.checked.quotes


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("It is “rm -rf /” (a.py:1-2).", "It is “rm -rf /” [a.py:1-2, not looked up]."),
        ("See\n\na.py:1-3\n    lie()", "See\n\n[a.py:1-3, not looked up]\n    lie()"),
        # Not by an empty quote between the two either.
        (f"“lie()”{BEGIN}\n{END} (a.py:1-2)", "“lie()” [a.py:1-2, not looked up]"),
        ("It is in a.py:1-3.", "It is in a.py:1-3."),
    ],
)
def test_a_model_cannot_write_what_looks_like_a_quote(written: str, answer: str) -> None:
    assert check(f"##Reason: r\n##Answer: {written}", SHOWN).final == answer
    assert check(written, SHOWN).final == answer


def test_a_question_too_long_for_the_model_is_refused() -> None:
    with pytest.raises(UsageError, match="no room for the question"):
        ask.run("Why?", SHOWN, Says("##Answer: x", room=-1))


def test_what_cannot_be_printed(
    repo: Path, server: OpenAIServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda _: "##Reason: r\n##Answer: a\ud800\u202eb\x1b[31m"
    there = {"via": "openai:m", "url": server.url}
    command.ask("What?", **there)  # type: ignore[arg-type]
    assert capsys.readouterr().out == "a?\ufffdb␛[31m\n"
    # Before the model is asked.
    asked = len(server.requests)
    with pytest.raises(UsageError, match="--teach: the answer is not UTF-8"):
        command.ask("What?", teach="\udcff", **there)  # type: ignore[arg-type]
    assert len(server.requests) == asked


def test_a_long_question_is_soon_understood() -> None:
    import time

    question = "`x` " + "run " * 60_000
    started = time.process_time()
    assert asking._named("run", f"`{question}") == 0 and asking._named("run", "a `b run` c") == 1
    assert time.process_time() - started < 2


def test_the_prompt_is_that_of_training() -> None:
    says = Says(quoted("y = 2"))
    ask.run(" What is y? ", SHOWN, says)
    documents = [Document(id=c.id, path=c.path, text=c.text, oracle=False) for c in SHOWN]
    assert says.prompts == [render(documents, "What is y?", Answer(reason="", final=""))[:-1]]
    assert ask.run("What?", SHOWN, Says("x", room=2)).documents == SHOWN[:2]
    refused = ask.run("What?", SHOWN, Says(f"##Reason: None.\n##Answer: {ABSTAIN}")).as_dict()
    assert refused["abstained"] and refused["final"] == ABSTAIN and refused["quotes"] == []
    for empty in ("", " \n", "\udcff"):
        with pytest.raises(UsageError, match="question is"):
            ask.run(empty, SHOWN, says)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository beside a folder that is the user's, with nothing else in it."""
    for name in ("FORGE_CACHE", "FORGE_DATA", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    folder = tmp_path / "repo"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "b.py").write_bytes(b"# Top\n\n\n" + PARSE.encode())
    (folder / "a.py").write_text(TWICE)
    git(folder, "init", "-q")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    running = OpenAIServer(lambda _: quoted("def parse(path):", "return lie(path)"))
    yield running
    running.close()


def put(*args: Any, **options: Any) -> asking.Asked:
    return asking.ask(*args, Settings(), reporter=SILENT, **options)


def test_a_lying_server(repo: Path, server: OpenAIServer) -> None:
    asked = put("What does `parse` do?", repo=repo / "sub", via="openai:m", url=server.url)
    assert asked.repository == repo
    told = asked.reply.as_dict()
    assert [(q["path"], q["start_line"], q["text"]) for q in told["quotes"]] == [
        ("sub/b.py", 4, "def parse(path):")
    ]
    assert told["struck"] == ["return lie(path)"] and told["model"] == "openai:m"
    assert told["documents"][0]["symbol"] == "parse"
    assert server.requests[0]["temperature"] == 0
    # Mined anew: the lines are those of the file as it is now.
    (repo / "sub" / "b.py").write_bytes(b"# Top\n\n\n\n" + PARSE.encode())
    moved = put("What does `parse` do?", via="openai:m", url=server.url)
    assert moved.reply.checked.quotes[0].start_line == 5
    server.close()
    with pytest.raises(ForgeError, match=r"openai:m at .*: no answer"):
        put("What?", via="openai:m", url="http://127.0.0.1:9/v1")


def test_a_correction_becomes_a_pair(repo: Path, server: OpenAIServer) -> None:
    asked = put("What does `parse` return?", via="openai:m", url=server.url)
    pair, borne_out = correct(asked.reply, "load(path)")
    assert borne_out and pair.rejected == asked.reply.written
    assert pair.chosen == (
        f"##Reason: `parse` is defined in document [1].\n{BEGIN}\nreturn load(path)\n{END}\n"
        "##Answer: load(path)"
    )
    assert pair.messages == asked.reply.messages and pair.origin.path == "sub/b.py"
    assert keep(pair, asked.corrections) and not keep(pair, asked.corrections)
    file = repo / ".forge" / "corrections.jsonl"
    assert asked.corrections == file and stat.S_IMODE(file.stat().st_mode) == 0o600
    with open(file, "ab") as stream:
        stream.write(b'{"record": "pref')  # another process died here
    form = quoted("return load(path)", final="What load gives.")
    assert keep(correct(asked.reply, form)[0], file)
    kept = list(read_records(file, Preference))
    assert [one.split for one in kept] == ["train", "valid"] and kept[1].chosen == form
    assert "corrections" not in (git(repo, "status", "--porcelain", "-uall") or "")
    assert all(
        ".forge" not in c.path for c in put("x", via="openai:m", url=server.url).reply.documents
    )


@pytest.mark.parametrize(
    ("right", "chosen"),
    [
        ("It cooks soup.", "##Reason: It follows from the documents.\n##Answer: It cooks soup."),
        ("not in the documents", f"##Reason: No document holds the answer.\n##Answer: {ABSTAIN}"),
    ],
)
def test_corrections_without_a_quote(right: str, chosen: str) -> None:
    reply = ask.run("What?", SHOWN, Says("x"))
    pair, borne_out = correct(reply, right)
    assert pair.chosen == chosen and borne_out == (ABSTAIN in chosen)


@pytest.mark.parametrize(
    ("right", "reason"),
    [
        (quoted("return lie(path)"), "holds the quote 'return lie\\(path\\)'"),
        (f"{BEGIN}\ny = 2\n{END}", "no ##Answer:"), (" ", "empty"),
        (quoted("y = 2", final=""), "after ##Answer:"), (quoted("y = 2"), "exactly so"),
    ],
)  # fmt: skip
def test_corrections_that_are_refused(right: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        correct(ask.run("What?", SHOWN, Says(quoted("y = 2"))), right)


def test_corrections_are_not_written_through_a_link(tmp_path: Path) -> None:
    pair = correct(ask.run("What?", SHOWN, Says("x")), "y = 2")[0]
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ForgeError, match="cannot write"):
        keep(pair, tmp_path / "link.jsonl")
    assert not (tmp_path / "elsewhere").exists()


def make_run(folder: Path, source: str, when: int, adapters: str | None = None) -> Path:
    """What of a trained run says which repository it is of."""
    (folder / "adapters").mkdir(parents=True)
    state = {
        "source": source, "stages": {"train": {}}, "settings": {"adapters": adapters},
        "metrics": {}, "files": [],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(state))
    weights = folder / "adapters" / "adapters.safetensors"
    weights.write_bytes(b"")
    os.utime(weights, (when, when))
    return folder


def test_which_run_answers(repo: Path, tmp_path: Path) -> None:
    def chosen() -> Path | None:
        found = asking.default_run(repo, SILENT)
        return found.path if found else None

    runs = repo / ".forge" / "runs"
    assert chosen() is None
    make_run(runs / "other", str(tmp_path), 90)
    assert chosen() is None
    old = make_run(runs / "old", str(repo), 10)
    new = make_run(runs / "new", str(repo / "sub"), 20)
    assert chosen() == new
    # What goes on from a run's adapters, on corrections, is a run of the same repository.
    later = make_run(runs / "later", "sha256:0", 30, adapters=str(old / "adapters"))
    make_run(runs / "foreign", "sha256:1", 40, adapters=str(runs / "other"))
    assert chosen() == later
    log = Registry(asking.registry_file())
    log.add("deployed", "u", "m", "m:1", source=str(new))
    log.add("deployed", "u", "m", "m:2", source=str(old))
    assert chosen() == old
    log.add("rolled back", "u", "m", "m:1")
    assert chosen() == new
    shutil.rmtree(new)
    assert chosen() == later
    # A broken one is passed over.
    for number, text in enumerate(('{"x', "[]", '{"settings": {}}', '{"settings": 3}')):
        (make_run(runs / f"broken-{number}", str(repo), 50) / "run.json").write_text(text)
    assert chosen() == later
    # A guardian's folder for llama-server, which no server's log tells of.
    guarded = make_run(repo / ".forge" / "guard" / "runs" / "v1", str(repo), 5)
    served = repo / ".forge" / "guard" / "served"
    served.mkdir()
    (served / "current").symlink_to("v1")
    assert chosen() == guarded
    log.add("deployed", "u", "m", "m:3", source=str(old))
    os.utime(served / "current", (10, 10), follow_symlinks=False)
    assert chosen() == old


def test_definitions_that_are_named_come_first(repo: Path) -> None:
    (repo / "many.py").write_text(
        "class Tree:\n    def walk(self):\n        return 1\n\n"
        + "    def more(self):\n"
        + "        print(1)\n" * 20
        + "\n\n"
        + "\n\n".join(f"def tree_{n}():\n    return 'walk walk tree walk'\n" for n in range(9))
        + "\n\ndef walk():\n    return 2\n"
    )

    def first(question: str) -> str | None:
        return asking.retrieve(question, repo, Settings(max_chars=200), 2, SILENT)[0].symbol

    assert first("What does `walk` return?") in ("walk", "Tree.walk")
    assert first("Does Tree.walk return the walk of a tree?") == "Tree.walk"
    (repo / "long.py").write_text("def in_parts():\n" + "    print('in parts')\n" * 30)
    parts = asking.retrieve("`in_parts`?", repo, Settings(max_chars=200), 2, SILENT)
    assert [chunk.part for chunk in parts] == [1, 2]
    assert first("What does many.Tree.walk return, tree_1 or tree_2?") == "Tree.walk"
    assert first("What does many.walk return, a tree or a walk?") == "walk"
    assert first("tree other.walk walk") not in ("walk", "Tree.walk")
    assert first("tree walk walk") not in ("walk", "Tree.walk")


def test_from_the_command_line(
    repo: Path, server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ask", "What does `parse` do?", "--via", "openai:m", "--url", server.url, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "forge_cli", *words, "-q", "--teach", "-"],
        cwd=repo, input="load(path)\n", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and json.loads(done.stdout)["struck"] == ["return lie(path)"]
    assert (repo / ".forge" / "corrections.jsonl").is_file() and done.stderr == ""
    there = {"via": "openai:m", "url": server.url}
    command.ask("What does `parse` do?", **there)  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    assert out == (
        "It reads.\n\nsub/b.py:4-4\n    def parse(path):\n\n"
        "[not in the documents: “return lie(path)”]\n"
    )
    assert err.splitlines()[-1].startswith("next: forge ask")
    (tmp_path / "empty").mkdir()
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "a.py").write_text("x = 1\n")
    for kind, told, options in (
        (UsageError, "none: no such file", {"repo": Path("none")}),
        (ForgeError, "no files to mine", {"repo": tmp_path / "empty"}),
        (ForgeError, "no text of it is long enough", {"repo": tmp_path / "short", **there}),
        (UsageError, "not a run directory", {"run": Path("none")}),
        (UsageError, "--via openai: not known", {"via": "openai"}),
        (UsageError, "holds the quote 'lie'", {"teach": quoted("lie"), **there}),
    ):
        with pytest.raises(kind, match=told):
            command.ask("What?", **options)  # type: ignore[arg-type]


def test_a_run_answers_and_learns_from_corrections(repo: Path, tmp_path: Path) -> None:
    """The whole way with a tiny random model: train, ask, teach twice, train on that."""
    from forge_cli import train
    from tiny_train import examples

    run = make_run(repo / ".forge" / "runs" / "repo", str(repo), 5)
    shutil.rmtree(run / "adapters")
    model = str(save_model(tmp_path / "model", max_position_embeddings=4096))
    train.run(
        examples(), out=run, model=model, steps=2, rank=2, learning_rate=1e-3, valid_every=2,
        init="lora", bits=16,
    )  # fmt: skip
    assert AdapterConfig(**json.loads((run / "adapters/config.json").read_text())).model == model
    for number, right in enumerate(("load(path)", "It reads naïve 日本語.")):
        asked = put(f"What does `parse` do, {number}?")
        assert asked.reply.model == str(run) and asked.reply.documents[0].symbol == "parse"
        assert keep(correct(asked.reply, right)[0], asked.corrections)
    flags = {"loss": "dpo", "adapters": str(run), "steps": 1}
    pipeline.train(str(asked.corrections), resolve(flags))
    found = asking.default_run(repo, SILENT)
    assert found is not None and found.path.name == "corrections"
