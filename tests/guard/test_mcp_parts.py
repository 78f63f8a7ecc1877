"""What stands between an agent and the command line: roots, tokens, results, the missing extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from forge_cli.core.errors import ForgeError, UsageError
from forge_cli.guard.mcp.calls import Calls, check
from forge_cli.guard.mcp.confirmations import Confirmations
from forge_cli.guard.mcp.results import result_of
from forge_cli.guard.mcp.roots import Roots
from forge_cli.guard.mcp.told import Told
from forge_cli.guard.skills import Skill, load_skills


def skill(name: str) -> Skill:
    found = load_skills().find(name)
    assert found
    return found


def test_paths_stay_below_the_roots(tmp_path: Path) -> None:
    root, beside, far = (tmp_path / name for name in ("root", "beside", "root-far"))
    for folder in (root, beside, far):
        folder.mkdir()
    (root / "in").symlink_to(root)
    (root / "out").symlink_to(far)
    (root / "model").mkdir()
    roots = Roots([root, beside])
    assert roots.path("x", "in/a") == root / "a"
    assert roots.path("x", str(beside / "b")) == beside / "b"
    for bad in ("..", "out", "out/x", "/etc", "in/../../x", str(far), "a\0b"):
        with pytest.raises(UsageError, match=r"leads out of|not a path"):
            roots.path("x", bad)
    train = skill("train")
    for model in ("smollm2-135m", "Qwen/Qwen2.5-Coder-0.5B"):
        assert roots.resolve(train, {"model": model})["model"] == model
    assert roots.resolve(train, {"model": "model"})["model"] == str(root / "model")
    for bad in ("../m", "out", "/m.gguf", "a/b/../../../m", "~/m/x"):
        if bad.startswith("~"):
            assert roots.resolve(train, {"model": bad})["model"] == str(root / bad)
            continue
        with pytest.raises(UsageError, match="model"):
            roots.resolve(train, {"model": bad})


def test_only_records_are_replaced(tmp_path: Path) -> None:
    roots, mine = Roots([tmp_path]), skill("mine")
    file = tmp_path / "c.jsonl"
    for text in ("", '{"record": "chunk"}\n', None):
        file.unlink() if text is None else file.write_text(text)
        assert roots.resolve(mine, {"path": ".", "out": "c.jsonl"})["out"] == str(file)
    for text in ('{"my": "data"}\n', "plain\n", "[1]\n", "3\n"):
        file.write_text(text)
        with pytest.raises(UsageError, match="is there already, and not Forge's"):
            roots.resolve(mine, {"path": ".", "out": "c.jsonl"})


def test_arguments_that_no_command_can_take(tmp_path: Path) -> None:
    schema = skill("ask").input
    for question, told in (("a\0b", "holds a NUL"), ("x" * 9000, "is too long")):
        with pytest.raises(UsageError, match=told) as refused:
            check({"question": question, "repo": "."}, schema)
        assert len(refused.value.message) < 300
    check({"question": r"What is \u0000?", "repo": "."}, schema)
    roots = Roots([tmp_path])
    for name, argument in (("train", "model"), ("show_run", "run")):
        with pytest.raises(UsageError, match="not a path"):
            roots.resolve(skill(name), {argument: "x" * 300})


def test_a_token_outlives_a_start_that_had_no_room(tmp_path: Path) -> None:
    calls = Calls(load_skills(), Roots([tmp_path]), allow_write=True)
    call = {"name": "n"}
    token = calls.confirmations.issue("rollback", call)

    def full(_: Skill) -> None:
        raise ForgeError("4 tasks run already", "wait")

    calls.tasks.check_room = full  # type: ignore[method-assign]

    async def report(*_: object) -> None:
        raise AssertionError

    with pytest.raises(ForgeError, match="4 tasks"):
        anyio.run(calls.call, "rollback_start", {**call, "confirmation": token}, report)
    calls.confirmations.redeem(token, "rollback", call)


def test_a_token_is_for_one_call_once_and_not_for_long() -> None:
    now = 0.0
    tokens = Confirmations(seconds=10, calls=3, clock=lambda: now)
    call = {"run": "/r", "name": "n"}
    token = tokens.issue("deploy", call)
    for tool, other in (("deploy", {**call, "name": "m"}), ("rollback", call), ("deploy", {})):
        with pytest.raises(UsageError, match="for other arguments"):
            tokens.redeem(token, tool, other)
    tokens.redeem(token, "deploy", dict(reversed(call.items())))
    with pytest.raises(UsageError, match="used already"):
        tokens.redeem(token, "deploy", call)
    with pytest.raises(UsageError, match="not known"):
        tokens.redeem("x", "deploy", call)
    late = tokens.issue("deploy", call)
    now = 10.0
    with pytest.raises(UsageError, match="too old"):
        tokens.redeem(late, "deploy", call)
    worn = tokens.issue("deploy", call)
    for _ in range(3):
        tokens.count()
    with pytest.raises(UsageError, match="too old"):
        tokens.redeem(worn, "deploy", call)


def test_results_are_of_the_skill(tmp_path: Path) -> None:
    record = (
        '{"record": "run", "version": 1, "path": "p", "model": "m", "metrics": {}, "files": []}'
    )
    run = result_of(skill("train"), {}, record + '\n{"record": "end"}\n', ["n"])
    assert run == {"path": "p", "model": "m", "metrics": {}, "files": [], "notes": ["n"]}
    recipe = {"name": "r", "model": None, "peak_bytes": None, "for": "all"}
    one = json.dumps(recipe)
    for stdout in (f"[{one}, {one}]", f"{one}\n{one}\n"):
        assert result_of(skill("list_recipes"), {}, stdout, [])["items"] == [recipe, recipe]
    assert result_of(skill("list_recipes"), {}, one, [])["items"] == [recipe]
    plan = '{"memory_bytes": {"base": 1}, "peak_bytes": 1}'
    assert result_of(skill("plan_training"), {}, plan, [])["peak_bytes"] == 1
    file = tmp_path / "c.jsonl"
    file.write_text("{}\n{}\n")
    assert result_of(skill("mine"), {"out": str(file)}, "", [])["records"] == 2
    with pytest.raises(ForgeError, match="printed no JSON"):
        result_of(skill("doctor"), {}, "hello", [])
    with pytest.raises(ForgeError, match="train: not what it promises: result: 'path' is a requ"):
        result_of(skill("train"), {}, '{"record": "end"}', [])


def test_what_a_command_says_is_understood() -> None:
    told = Told()
    for line in (
        '{"process_group": 7}', '{"progress": "train: 3/9 loss 1.5"}', '{"note": "a"}', "plain",
        '{"warning": "b"}', '{"error": "bad", "hint": "do"}', "[1]",
    ):  # fmt: skip
        told.take(line)
    assert told.group == 7 and told.notes() == ["a", "b"]
    assert told.progress() == {"stage": "train", "done": 3, "total": 9, "detail": "loss 1.5"}
    assert (told.error, told.hint) == ("bad", "do")
    assert told.log(3) == ["b", "error: bad", "[1]"] and told.log(0) == []


COMMAND = """
import sys, time
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    for _ in range(3):
        print("x" * 100_000, flush=True)  # which nobody reads any more
    open(sys.argv[1], "w").write("kept")
"""


def test_a_command_keeps_its_work_when_nobody_listens_any_more(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    command = json.dumps([sys.executable, "-c", COMMAND, str(kept)])
    child = subprocess.Popen(
        [sys.executable, "-m", "forge_cli.guard.mcp.child", "0", command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin and child.stdout and child.stderr
    group = json.loads(child.stderr.readline())["process_group"]
    assert child.stdout.readline() == b"begun\n" and os.getpgid(group) == group
    for pipe in (child.stdout, child.stderr, child.stdin):
        pipe.close()
    assert child.wait() == 0 and kept.read_text() == "kept"
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_missing_extra_is_one_clear_line(tmp_path: Path) -> None:
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'mcp' else find(name, *a)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "-m", "forge_cli", "mcp"], env=env, text=True,
                          capture_output=True, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        "error: mcp: not installed\nhint: pip install '.[mcp]' in a checkout of Forge\n"
    )
    wrong = subprocess.run([sys.executable, "-m", "forge_cli", "mcp", "--root", "none"], text=True,
                           capture_output=True, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    assert wrong.returncode == 2 and "--root none: no such folder" in wrong.stderr
