"""inspect-ai judges a run, in this process: its own tasks, solvers and scorers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai")

from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageTool, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.scorer import match
from inspect_ai.solver import generate, system_message
from inspect_ai.tool import ToolInfo

from forge_cli import train
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.records import Message
from forge_cli.evaluate.adapters.inspect_ai import ForgeAPI
from forge_cli.evaluate.adapters.one_batch import BatchThread, Request
from forge_cli.evaluate.adapters.run_model import open_run_model
from forge_cli.evaluate.sides import SideSpec, open_side
from forge_cli.models.chat import prompt_ids
from forge_cli.models.load import load_tokenizer
from forge_cli.teachers import Completion
from tiny_train import examples, save_model

ROWS = examples()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = str(save_model(folder / "model", max_position_embeddings=1024))
    train.run(
        ROWS, out=folder, model=model, rank=4, layers=0, steps=12, learning_rate=2e-2,
        max_tokens=1024,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def answers(trained: Path) -> list[Completion]:
    """What `forge eval` hears from the tuned model."""
    side = open_side(SideSpec.parse("tuned"), trained / "adapters", url=None, max_tokens=16)
    found: dict[int, Completion] = {}
    side.complete([row.messages[:-1] for row in ROWS], found.__setitem__)
    return [found[index] for index in range(len(ROWS))]


def task(targets: list[str], **config: Any) -> Task:
    samples = [
        Sample(id=row.id, input=row.messages[1].content, target=target)
        for row, target in zip(ROWS, targets, strict=True)
    ]
    return Task(
        dataset=MemoryDataset(samples),
        solver=[system_message(ROWS[0].messages[0].content), generate()],
        scorer=match(location="exact"),
        config=GenerateConfig(**config),
    )


def run(asked: Task, model: Any, logs: Path) -> Any:
    (log,) = eval(asked, model=model, log_dir=str(logs), display="none")
    assert log.status == "success", log.error
    return log


def test_answers_and_usage_are_those_of_forge(
    trained: Path, answers: list[Completion], tmp_path: Path
) -> None:
    model = get_model(f"forge/{trained}")
    # Two targets that are not what the model says: the score must tell.
    targets = [a.text for a in answers]
    targets[2] = targets[5] = "something else"
    log = run(task(targets, max_tokens=16, temperature=0), model, tmp_path)
    assert [s.output.completion for s in log.samples] == [a.text for a in answers]
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(1 - 2 / len(ROWS))
    for sample, answer in zip(log.samples, answers, strict=True):
        assert sample.output.usage.input_tokens == answer.prompt_tokens
        assert sample.output.usage.output_tokens == answer.completion_tokens
    usage = log.stats.model_usage[f"forge/{trained}"]
    assert usage.input_tokens == sum(a.prompt_tokens for a in answers)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    api = model.api
    assert isinstance(api, ForgeAPI)
    assert sum(api.thread.batches) == len(ROWS)
    assert max(api.thread.batches) > 4, "what waits together is one batch"
    reasons = {s.output.stop_reason for s in log.samples}
    cut = [a.completion_tokens == 16 for a in answers]
    assert reasons <= {"stop", "max_tokens"} and ("max_tokens" in reasons) == any(cut)


def test_stop_strings_end_answers(trained: Path, answers: list[Completion], tmp_path: Path) -> None:
    stop = answers[0].text.strip()[1:3]
    log = run(task([""] * len(ROWS), max_tokens=16, stop_seqs=[stop]), f"forge/{trained}", tmp_path)
    for sample, answer in zip(log.samples, answers, strict=True):
        assert sample.output.completion == answer.text.split(stop)[0]
    first = log.samples[0].output
    assert first.stop_reason == "stop"
    assert first.usage.output_tokens < answers[0].completion_tokens, "not decoded to the limit"


def test_the_base_is_another_model(
    trained: Path, answers: list[Completion], tmp_path: Path
) -> None:
    model = get_model(f"forge/{trained}", side="base")
    log = run(task([a.text for a in answers], max_tokens=16), model, tmp_path)
    assert [s.output.completion for s in log.samples] != [a.text for a in answers]


def ask(trained: Path, *chat: Any, tools: Any = (), **config: Any) -> Any:
    api = get_model(f"forge/{trained}").api
    return asyncio.run(api.generate(list(chat), list(tools), "auto", GenerateConfig(**config)))


def test_what_does_not_fit_is_said(trained: Path) -> None:
    found = ask(trained, ChatMessageUser(content="x = 1\n" * 1000))
    assert found.stop_reason == "model_length" and "the model takes 1024" in found.error
    tokenizer = load_tokenizer(trained / "model")

    def size(text: str) -> int:
        return len(prompt_ids(tokenizer, [Message(role="user", content=text)]))

    text = "x"
    while size(text + " 1") <= 1020:
        text += " 1"
    cut = ask(trained, ChatMessageUser(content=text), max_tokens=500)
    assert cut.usage.total_tokens <= 1024


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"temperature": 0.7}, "answers greedily"),
        ({"num_choices": 2}, "all alike"),
        ({"logprobs": True}, "not handed on"),
        ({"tools": [ToolInfo(name="t", description="d")]}, "call none"),
    ],
)
def test_what_forge_does_not_do_is_refused(
    trained: Path, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        ask(trained, ChatMessageUser(content="a"), **config)
    with pytest.raises(ForgeError, match="result of a tool"):
        ask(trained, ChatMessageTool(content="a"))


def test_runs_that_there_are_none_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run that was trained") as found:
        get_model(f"forge/{tmp_path}")
    assert "hint: give the directory of one" in found.value.__notes__[0]


def test_a_request_that_was_given_up_is_not_run(trained: Path) -> None:
    thread = BatchThread(lambda: open_run_model(trained))
    chat = [Message(role="user", content="a")]
    given_up, kept = Request(chat, 4), Request(chat, 4)
    given_up.answer.cancel()
    thread.ask(given_up)
    thread.ask(kept)
    assert kept.answer.result(timeout=60).tokens
    assert thread.batches == [1]
    thread.close()


def test_an_error_reaches_every_request_of_its_batch(trained: Path) -> None:
    model = open_run_model(trained)

    class Failing:
        tokenizer, max_length = model.tokenizer, model.max_length

        def generate(self, *_: object) -> None:
            raise ForgeError("out of something")

        def close(self) -> None: ...

    thread = BatchThread(Failing)  # type: ignore[arg-type]
    requests = [Request([Message(role="user", content=text)], 4) for text in "ab"]
    for request in requests:
        thread.ask(request)
    for request in requests:
        with pytest.raises(ForgeError, match="out of something"):
            request.answer.result(timeout=60)
    thread.close()


def test_its_own_command_line(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "from inspect_ai import Task, task\n"
        "from inspect_ai.dataset import Sample\n"
        "from inspect_ai.scorer import includes\n"
        "@task\n"
        "def tiny():\n"
        "    return Task(dataset=[Sample(input='What is value_1_1?', target='zzz')],\n"
        "                scorer=includes())\n"
    )
    command = [sys.executable, "-m", "inspect_ai", "eval", "task.py", "--display", "plain"]
    command += ["--model", f"forge/{os.path.relpath(trained, tmp_path)}", "-M", "side=base"]
    command += ["--max-tokens", "8"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy" in done.stdout and list((tmp_path / "logs").glob("*.eval"))
