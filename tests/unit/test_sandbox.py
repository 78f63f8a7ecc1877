"""Ordinary code does not notice the sandbox; what has no end, ends; whoever runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.evaluate.sandbox import run_contained
from sandboxed import ENDLESS, MB, SCRIPT, SMALL, alive, here, linux, new_token, run, says

pytestmark = here


@pytest.fixture
def token() -> str:
    return new_token()


# Ordinary code.


def test_prints_and_exit_codes() -> None:
    done = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (done.exit_code, done.stdout, done.stderr, done.why) == (3, "out\n", "err\n", "")
    assert 0 < done.seconds < 60


def test_output_below_the_limit_is_whole() -> None:
    assert says("print('x' * 200_000)", replace(SMALL, output_bytes=MB)) == "x" * 200_000


def test_modules_files_and_standard_input(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "own.py").write_text("VALUE = 7")
    code = f"""
    import json, multiprocessing, pathlib, sqlite3, subprocess, sys, tempfile, threading, unittest
    import yaml
    sys.path += [{str(repository)!r}, "."]
    import own
    from pack.given import NAME
    database = sqlite3.connect("base.db")
    database.execute("create table t (x)")
    pathlib.Path("made").mkdir()
    pathlib.Path("made/file.txt").write_text("written")
    tempfile.NamedTemporaryFile().write(b"x")
    thread = threading.Thread(target=multiprocessing.Lock().acquire)
    thread.start(); thread.join()
    echo = subprocess.run(["sh", "-c", "cat made/*"], capture_output=True, text=True).stdout
    print(json.dumps([own.VALUE, NAME, echo, sys.stdin.read(), pathlib.Path.cwd().name]))
    """
    files = {"pack/__init__.py": "", "pack/given.py": "NAME = 'given'"}
    given = {"files": files, "read_only": [repository], "stdin": "typed €"}
    found = says(code, replace(SMALL, memory_bytes=512 * MB), **given)
    assert found == '[7, "given", "written", "typed \\u20ac", "sandbox"]'
    assert [path.name for path in repository.iterdir()] == ["own.py"]


def test_a_crash_is_not_an_exit_code() -> None:
    done = run("import os; os.abort()")
    assert (done.exit_code, done.why) == (None, "killed")


def test_what_cannot_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("../x", "/etc/x", "a/../../x", "", "."):
        with pytest.raises(ForgeError, match="not a path inside"):
            run("", files={name: "x"})
    for path, why in ((tmp_path / "none", "not a directory"), (Path.home(), "not shown"),
                      (Path("/"), "not shown"), (Path("/proc"), "not shown")):  # fmt: skip
        with pytest.raises(ForgeError, match=why):
            run("", read_only=[path])
    known = Path.home()
    monkeypatch.setenv("HOME", str(tmp_path / "repository" / "home"))
    for path in (known, tmp_path):
        with pytest.raises(ForgeError, match="not shown"):
            run("", read_only=[path])
    with pytest.raises(ForgeError, match="no-such-command"):
        run_contained(["no-such-command"], files={})
    with pytest.raises(ForgeError, match="No space left"):
        run("", files={"big": "x" * 5 * MB})


def test_several_at_a_time() -> None:
    # Each may have as many processes as if it were alone.
    code = """
    import os, time
    for _ in range(6):
        if os.fork() == 0:
            time.sleep(0.5)
            os._exit(0)
    print({number})
    os.waitpid(-1, 0)
    """
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(says, [code.format(number=number) for number in range(3)]))
    assert found == ["0", "1", "2"]


# Limits.


def test_endless_loop_ends() -> None:
    assert run("while True: pass", ENDLESS).why == "time"
    done = run("while True: pass", replace(SMALL, cpu_seconds=1))
    assert (done.exit_code, done.why) == (None, "time")


def test_signals_that_are_ignored_do_not_help() -> None:
    code = """
    import signal
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    print("ignored", flush=True)
    while True: pass
    """
    done = run(code, ENDLESS)
    assert (done.exit_code, done.why) == (None, "time")
    assert run(code, replace(SMALL, cpu_seconds=1)).why == "time"


@linux
def test_fork_bomb(token: str) -> None:
    code = f"""
    import os
    name = {token!r}
    while True:
        try:
            os.fork()
        except BlockingIOError:
            seen = sum(entry.isdigit() for entry in os.listdir("/proc"))
            os.write(1, b"refused at %d\\n" % seen)
    """
    done = run(code, replace(ENDLESS, output_bytes=10 * MB))
    seen = {int(line.split()[-1]) for line in done.stdout.splitlines()[:-1]}
    # Process 1 of the namespace is not the code's.
    assert done.why in ("time", "output") and seen and max(seen) <= SMALL.processes + 1
    assert not alive(token)


def test_memory_of_one_process() -> None:
    done = run("bytearray(10 << 30)")
    assert done.exit_code == 1 and "MemoryError" in done.stderr


@linux
def test_memory_of_several_processes() -> None:
    code = """
    import os, time
    for _ in range(4):
        if os.fork() == 0:
            break
    kept = b"x" * (50 << 20)
    print("kept", flush=True)
    time.sleep(100)
    """
    done = run(code)
    assert (done.exit_code, done.why) == (None, "memory")


@linux
def test_memory_that_is_no_process_s() -> None:
    code = """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (lambda: os.memfd_create("x"), lambda: libc.shmget(0, 1 << 20, 0o1600),
                 lambda: libc.msgget(0, 0o1600)):
        try:
            print(call() < 0 and ctypes.get_errno())
        except OSError as error:
            print(error.errno)
    try:
        os.write(0, b"x")
    except OSError as error:
        print(error.errno)
    """
    assert says(code).split() == ["1", "1", "1", "1"]


@linux
def test_disk() -> None:
    code = """
    import os
    written, number = 0, 0
    for directory in (".", "/tmp", "/dev/shm"):
        try:
            while True:
                number += 1
                with open(f"{directory}/{number}", "wb", buffering=0) as file:
                    written += file.write(bytes(100_000))
        except OSError as error:
            print(error.errno)
    print(written)
    """
    *errors, written = map(int, says(code).split())
    assert errors == [28] * 3 and 3 * MB < written <= SMALL.disk_bytes


def test_endless_output() -> None:
    for number in (1, 2):
        done = run(f"import os\nwhile True: os.write({number}, b'x' * 1000)")
        assert (done.exit_code, done.why) == (None, "output")
        assert (done.stdout, done.stderr)[number - 1] == "x" * SMALL.output_bytes


# Other users, other machines.


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="all tests here run as such a user")
def test_without_privileges() -> None:
    python = "/usr/bin/python3"
    if not Path(python).exists() or not all(p.stat().st_mode & 1 for p in SCRIPT.parents):
        pytest.skip("no Python or source that another user may read")
    code = """if True:
        import os
        print(os.getuid(), *filter(str.isdigit, os.listdir("/proc")))
        try:
            open("/new", "w")
        except OSError as error:
            print(error.errno, flush=True)
        kept = []
        for _ in range(4):
            if os.fork() == 0:
                break
        kept = b"x" * (90 << 20)
        __import__("time").sleep(100)
    """
    found = subprocess.run(
        [python, SCRIPT, code], user=65534, group=65534, extra_groups=[], cwd="/",
        capture_output=True, text=True, timeout=100, env={},
    )  # fmt: skip
    if found.stdout.startswith("why_not: cannot run contained"):
        pytest.skip(found.stdout)
    assert found.stdout.split("ended: ")[1].split() == ["None", "memory", "65534", "1", "2", "30"]


# Who is root of a user namespace: that has no other user; with all users, where no more user
# namespaces may be made; where no mount namespace may be made.
ALONE = 'exec unshare -U -r "$@"'
NESTED = """
unshare -U sleep 60 & inner=$!
for attempt in $(seq 40); do
    echo "0 0 65536" > /proc/$inner/uid_map && break
    sleep 0.05
done
echo "0 0 65536" > /proc/$inner/gid_map
nsenter -U -t $inner -S 0 -G 0 sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; "$@"' sh "$@"
kill $inner
"""
REFUSED = """
exec unshare -U -r sh -c 'echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$@"' sh "$@"
"""


def run_under(shell: str) -> str:
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("no unshare, no nsenter")
    code = """if True:
        import os
        status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
        print(os.getuid(), int(status["CapEff"] + status["CapBnd"], 16), status["NoNewPrivs"])
    """
    found = subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, SCRIPT, code],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    if "why_not" not in found.stdout:
        pytest.skip(found.stderr)
    return found.stdout


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can map users")
@pytest.mark.parametrize("shell", [ALONE, NESTED], ids=["alone", "nested"])
def test_root_of_a_container(shell: str) -> None:
    assert run_under(shell).split() == ["why_not:", "ended:", "0", "65534", "0", "1"]


@linux
def test_a_machine_that_refuses_says_so() -> None:
    said = run_under(REFUSED)
    assert "cannot run contained: unshare" in said and "ended" not in said
