"""lm-eval judges a run: its own evaluator, on tasks of local files, against the model itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lm_eval")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from forge_cli import export, train
from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.core.events import SILENT
from forge_cli.core.records import Message
from forge_cli.evaluate.adapters.lm_eval import main, register
from forge_cli.evaluate.adapters.lm_eval_model import ForgeLM
from forge_cli.evaluate.sides import SideSpec, open_side
from forge_cli.models.adapters import load_tuned
from forge_cli.models.answer_losses import answer_losses
from forge_cli.models.llamacpp import LlamaCpp
from forge_cli.models.load import Loaded
from tiny_train import examples, logits, save_model

CHOICES = """
task: tiny_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}\\nWhat is {{{{name}}}}?\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
WRITTEN = """
task: tiny_written
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}\\nWhat is {{{{name}}}}?"
doc_to_target: "{{{{choices[label]}}}}"
generation_kwargs: {{until: [".", "<|im_end|>"], max_gen_toks: 12, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
ROLLING = """
task: tiny_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
"""
# At every start lm-eval reads the heads of its own tasks, thousands of files: that takes longest.
WITHOUT_ITS_TASKS = """
import functools, runpy, lm_eval.tasks
lm_eval.tasks.TaskManager = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
runpy.run_module("forge_cli.evaluate.adapters.lm_eval", run_name="__main__", alter_sys=True)
"""
TASKS = {"tiny_choices": CHOICES, "tiny_written": WRITTEN, "tiny_rolling": ROLLING}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with an exported file."""
    folder = tmp_path_factory.mktemp("run")
    model = str(save_model(folder / "model", max_position_embeddings=1024))
    train.run(
        examples(), out=folder, model=model, rank=4, layers=0, steps=12, learning_rate=2e-2,
        max_tokens=1024,
    )  # fmt: skip
    export.run(
        adapters=folder / "adapters", out=folder / "export", name="m", quants=["f16"], parity=False
    )
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks over ten rows."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = []
    for n in range(10):
        text = "\n".join(f"value_{n}_{line} = {line * (n + 3)}" for line in range(8))
        choices = [str(3 * (n + 3)), str(n), f"value_{n}", "none of these"]
        rows.append({"text": text, "name": f"value_{n}_3", "choices": choices, "label": 0})
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text.format(data=data))
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(scope="module")
def tuned(trained: Path) -> Loaded:
    return load_tuned(trained / "adapters")


def judge(tasks: Path, names: list[str], model_args: str, **settings: Any) -> dict[str, Any]:
    register()
    found = simple_evaluate(
        model="forge", model_args=model_args, tasks=names, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False), **settings,
    )  # fmt: skip
    assert found is not None
    return dict(found)


def likelihood(loaded: Loaded, context: str, continuation: str) -> tuple[float, bool]:
    """The definition: the whole text through the model once, for this continuation alone."""
    ids = loaded.tokenizer.encode(context + continuation)
    start = len(loaded.tokenizer.encode(context))
    scores = logits(loaded.model, ids)[start - 1 : -1].astype(np.float64)
    chances = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return (
        float(chances[np.arange(len(scores)), ids[start:]].sum()),
        bool((scores.argmax(axis=1) == ids[start:]).all()),
    )


def greedy(loaded: Loaded, prompt: str, limit: int) -> str:
    ids = loaded.tokenizer.encode(prompt)
    start = len(ids)
    while len(ids) < start + limit:
        ids.append(int(logits(loaded.model, ids)[-1].argmax()))
        if ids[-1] in loaded.tokenizer.eos_token_ids:
            ids.pop()
            break
    return str(loaded.tokenizer.decode(ids[start:]))


def test_choices_are_as_likely_as_alone(trained: Path, tasks: Path, tuned: Loaded) -> None:
    found = judge(tasks, ["tiny_choices"], f"run={trained}")
    samples = found["samples"]["tiny_choices"]
    assert len(samples) == 10
    right = []
    for sample in samples:
        wanted = []
        for request, ((chance, is_greedy),) in zip(
            sample["arguments"], sample["resps"], strict=True
        ):
            alone = likelihood(tuned, *request)
            assert float(chance) == pytest.approx(alone[0], abs=1e-4)
            assert (is_greedy in (True, "True")) == alone[1]
            wanted.append(alone[0])
        right.append(int(np.argmax(wanted)) == 0)
    assert found["results"]["tiny_choices"]["acc,none"] == np.mean(right)
    assert found["config"]["forge_side"] == "tuned" and found["config"]["forge_parameters"]


def test_the_base_and_a_file_are_sides_too(trained: Path, tasks: Path) -> None:
    file = next((trained / "export").glob("*f16*.gguf"))
    names = ["tiny_choices", "tiny_written", "tiny_rolling"]
    of = {
        side: judge(tasks, names, f"run={trained},side={side}")
        for side in ("base", "tuned", str(file))
    }

    def chances(side: str) -> np.ndarray:
        samples = of[side]["samples"]["tiny_choices"]
        return np.array([float(r[0][0]) for sample in samples for r in sample["resps"]])

    def value(side: str) -> float:
        return float(of[side]["results"]["tiny_rolling"]["bits_per_byte,none"])

    # float16 weights, and the tuned model's base is quantised: they are near, not equal.
    assert np.abs(chances(str(file)) - chances("tuned")).max() < 0.2
    assert np.abs(chances("base") - chances("tuned")).max() > 0.5
    assert value(str(file)) == pytest.approx(value("tuned"), abs=0.02)
    assert abs(value("base") - value("tuned")) > 0.02
    answers = [
        [sample["resps"][0][0] for sample in of[side]["samples"]["tiny_written"]]
        for side in ("tuned", str(file))
    ]
    assert sum(a == b for a, b in zip(*answers, strict=True)) >= 8


def test_answers_are_the_greedy_ones(trained: Path, tasks: Path, tuned: Loaded) -> None:
    samples = judge(tasks, ["tiny_written"], f"run={trained}")["samples"]["tiny_written"]
    whole = [greedy(tuned, sample["arguments"][0][0], 12) for sample in samples]
    wanted = [text.split(".")[0] for text in whole]
    assert [sample["resps"][0][0] for sample in samples] == wanted
    assert wanted != whole, "some answer must meet its stop string"


def test_with_its_template_the_model_answers_as_forge_asks_it(trained: Path, tasks: Path) -> None:
    found = judge(tasks, ["tiny_written"], f"run={trained}", apply_chat_template=True)
    side = open_side(SideSpec.parse("tuned"), trained / "adapters", url=None, max_tokens=12)
    samples = found["samples"]["tiny_written"]
    prompts = [
        [Message(role="user", content=f"{s['doc']['text']}\nWhat is {s['doc']['name']}?")]
        for s in samples
    ]
    answers = {}
    side.complete(prompts, lambda index, answer: answers.update({index: answer.text}))
    for index, sample in enumerate(samples):
        assert sample["arguments"][0][0].startswith("<|im_start|>user\n")
        assert sample["resps"][0][0] == answers[index].split(".")[0]


def test_the_likelihood_of_an_answer_is_its_loss(trained: Path, tuned: Loaded) -> None:
    model = ForgeLM(str(trained))
    rows = examples()[:6]
    asked = []
    for row in rows:
        chat = [message.model_dump() for message in row.messages]
        asked.append((
            model.apply_chat_template(chat[:-1]), chat[-1]["content"] + "<|im_end|>"
        ))  # fmt: skip
    # lm-eval moves the line's end from the context to the continuation: judge the ids instead.
    pairs = [
        (request, model.tok_encode(request[0]), model.tok_encode(request[1])) for request in asked
    ]
    found = model._loglikelihood_tokens(pairs, disable_tqdm=True)
    losses = answer_losses(tuned, [row.messages for row in rows], "", SILENT)
    for (chance, _), (_, _, ids), loss in zip(found, pairs, losses, strict=True):
        assert -chance / len(ids) == pytest.approx(loss, abs=1e-4)


def instances(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    return [
        Instance(request_type=kind, doc={}, arguments=argument, idx=0) for argument in arguments
    ]


@pytest.mark.parametrize("kind", ["mlx", "gguf"])
def test_texts_longer_than_the_model_are_judged_in_windows(
    trained: Path, tuned: Loaded, kind: str
) -> None:
    file = next((trained / "export").glob("*f16*.gguf"))
    side = "tuned" if kind == "mlx" else str(file)
    model = ForgeLM(str(trained), side, max_length=16)
    texts = ["value_1_2 = 8\n" * 6, "a", ""]
    found = model.loglikelihood_rolling(
        instances("loglikelihood_rolling", *((text,) for text in texts)), disable_tqdm=True
    )
    ids = model.tok_encode(texts[0], add_special_tokens=False)
    assert len(ids) > 40
    total, at = 0.0, 0
    while at < len(ids):
        end = min(at + 16, len(ids))
        seen = [model.prefix_token_id, *ids][max(0, end - 16) : end]
        if kind == "mlx":
            scores = logits(tuned.model, seen)
        else:
            with LlamaCpp(file, 16) as llama:
                scores = llama.logits(seen)
        scores = scores[-(end - at) :].astype(np.float64)
        chances = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        total += chances[np.arange(end - at), ids[at:end]].sum()
        at = end
    assert found[0] == pytest.approx(total, abs=1e-3 if kind == "mlx" else 0.05)
    assert found[1] < 0 and found[2] == 0.0


def test_contexts_that_do_not_fit_lose_their_beginning(trained: Path) -> None:
    model = ForgeLM(str(trained), max_length=24)
    how = {"until": [], "max_gen_toks": 4}
    long = "value_9_9 = 1\n" * 20
    short = model.tokenizer.decode(model.tok_encode(long)[-20:])
    asked = instances("generate_until", (long, how), (short, how))
    one, other = model.generate_until(asked, disable_tqdm=True)
    assert one == other
    with pytest.raises(ForgeError, match="a task asks for 24 tokens"):
        model.generate_until(instances("generate_until", ("a", {"max_gen_toks": 24})))
    with pytest.raises(ForgeError, match="a continuation has"):
        model.loglikelihood(instances("loglikelihood", ("a", long)))
    with pytest.raises(ForgeError, match="do_sample"):
        model.generate_until(instances("generate_until", ("a", {"temperature": 0.7})))
    empty = model.loglikelihood(instances("loglikelihood", ("", " 9"), ("a", "")))
    assert empty[0][0] < 0 and empty[1] == (0.0, True)


def test_what_was_answered_before_a_stop_is_not_asked_again(
    trained: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = str(tmp_path / "cache")
    from forge_cli.evaluate.adapters.run_model import _MlxModel

    whole = _MlxModel.likelihoods
    counts: list[int] = []

    def stop_after_four(self: Any, rows: Any, done: Any) -> None:
        def some(*found: Any) -> None:
            if len(counts) == 4:
                raise KeyboardInterrupt
            counts.append(1)
            done(*found)

        whole(self, rows, some)

    monkeypatch.setattr(_MlxModel, "likelihoods", stop_after_four)
    with pytest.raises(KeyboardInterrupt):
        judge(tasks, ["tiny_choices"], f"run={trained}", use_cache=cache)
    asked: list[int] = []

    def count(self: Any, rows: Any, done: Any) -> None:
        asked.append(len(rows))
        whole(self, rows, done)

    monkeypatch.setattr(_MlxModel, "likelihoods", count)
    first = judge(tasks, ["tiny_choices"], f"run={trained}", use_cache=cache)
    again = judge(tasks, ["tiny_choices"], f"run={trained}", use_cache=cache)
    assert asked == [36], "four of forty were kept, and then all"
    assert first["results"] == again["results"]


@pytest.mark.parametrize(
    ("run", "side", "says"),
    [
        ("nowhere", "tuned", "not a run that was trained"),
        ("", "base+examples", "is for forge eval"),
        ("", "ollama:m", "is for forge eval"),
        ("", "nothing.gguf", "no such file"),
        ("", "best", "is not known"),
    ],
)
def test_runs_and_sides_that_there_are_none_of(
    trained: Path, run: str, side: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        ForgeLM(run or str(trained), side)


def test_its_own_command_line(trained: Path, tasks: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "forge_cli.evaluate.adapters.lm_eval", "--model", "forge"]
    command += [
        "--model_args",
        f"run={trained},side=base,model=mine",
        "--tasks",
        "tiny_choices,tiny_written",
    ]
    command += ["--include_path", str(tasks), "--output_path", str(tmp_path / "out")]
    here = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "datasets")}
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | here, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "|tiny_choices|" in done.stdout.replace(" ", "")
    results = json.loads(next((tmp_path / "out" / "mine").glob("results_*.json")).read_text())
    assert results["config"]["forge_side"] == "base"


def test_a_wrong_run_ends_in_two_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lm_eval.__main__.cli_evaluate", lambda: ForgeLM("nowhere"))
    assert main() == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: nowhere: not a run that was trained")
    assert said[1].startswith("hint: ") and len(said) == 2


def test_without_lm_eval_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.models", None)
    assert main() == 1
    assert "pip install 'forge-cli[lm-eval]'" in capsys.readouterr().err
