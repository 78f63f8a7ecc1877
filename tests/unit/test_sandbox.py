"""Hostile code, really run, does no harm; ordinary code does not notice that it is contained."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.evaluate.sandbox import Limits, Outcome, run_contained, why_not

MB = 1 << 20
# Far more time than any of them needs, and little of all else.
SMALL = Limits(
    seconds=60, cpu_seconds=30, memory_bytes=128 * MB, disk_bytes=4 * MB, processes=8,
    output_bytes=20_000,
)  # fmt: skip
ENDLESS = replace(SMALL, seconds=0.7)
SCRIPT = Path(__file__).parents[1] / "contained.py"

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"no sandbox here: {why_not()}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="what the namespaces of Linux do")


def run(code: str, limits: Limits = SMALL, **given: object) -> Outcome:
    command = [sys.executable, "-I", "-c", dedent(code)]
    return run_contained(command, **{"files": {}, "limits": limits, **given})  # type: ignore[arg-type]


def says(code: str, limits: Limits = SMALL, **given: object) -> str:
    """What code prints that ends well."""
    done = run(code, limits, **given)
    assert (done.exit_code, done.why) == (0, ""), done
    return done.stdout.strip()


def alive(token: str) -> list[str]:
    """Processes of this machine that have a token on their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token.encode() in file.read_bytes():
                found.append(file.parent.name)
        except OSError:
            continue
    return found


@pytest.fixture
def token() -> str:
    return f"token-{secrets.token_hex(8)}"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret.txt"
    file.write_text("the secret")
    # Nothing but the sandbox keeps it.
    for path in (file, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)
    return file


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


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


# What lies outside.


def test_network(server: socket.socket) -> None:
    address = server.getsockname()
    with socket.create_connection(address):
        server.accept()[0].close()
    code = f"""
    import socket
    for name in ({address!r}, ("1.1.1.1", 53)):
        try:
            socket.create_connection(name, timeout=5)
            print("connected")
        except OSError:
            print("failed")
    """
    assert says(code).split() == ["failed", "failed"]


@linux
def test_abstract_socket(token: str) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{token}")
        listening.listen()
        code = f"""
        import socket
        try:
            socket.socket(socket.AF_UNIX).connect("\\0{token}")
        except ConnectionRefusedError:
            print("refused")
        """
        assert says(code) == "refused"


def test_files_outside_cannot_be_read(secret: Path) -> None:
    code = f"""
    import os
    os.symlink({str(secret)!r}, "link")
    os.symlink({str(secret.parent)!r}, "directory")
    for name in ({str(secret)!r}, "link", "directory/secret.txt", "/..{secret}",
                 "/proc/1/root{secret}", "/proc/self/cwd/../..{secret}",
                 "/etc/shadow", {str(SCRIPT)!r}):
        try:
            print(open(name).read())
        except OSError:
            print("no")
    """
    assert says(code).split() == ["no"] * 8
    assert secret.read_text() == "the secret"


@linux
def test_home_is_not_visible() -> None:
    home = Path.home()
    code = f"import os; print(*(os.listdir({str(home)!r}) if os.path.isdir({str(home)!r}) else []))"
    way = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)}
    way |= {Path(prefix).absolute() for prefix in (sys.prefix, sys.base_prefix)}
    inside = {path.relative_to(home).parts[0] for path in way if path.is_relative_to(home)}
    assert set(says(code).split()) <= inside


def test_files_outside_cannot_be_written(secret: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.mkdir(mode=0o777)
    shown.chmod(0o777)
    places = [str(tmp_path / "new"), str(secret), str(shown / "new"), "/usr/new", "/new",
              f"{sys.prefix}/new", f"{sys.base_prefix}/new", "/etc/passwd", "/dev/new"]  # fmt: skip
    code = f"""
    import os
    for name in {places}:
        try:
            open(name, "w").write("changed")
            print("written", name)
        except OSError:
            pass
    try:
        os.chmod({str(shown)!r}, 0)
    except OSError as error:
        print(error.errno)
    """
    assert says(code, read_only=[shown]) == "30"
    assert secret.read_text() == "the secret" and not list(shown.iterdir())
    assert not any(Path(place).exists() for place in places if place.endswith("new"))


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_SECRET", "the secret")
    code = """
    import os
    print(*sorted(os.environ))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            print(b"SECRET" in open(f"/proc/{pid}/environ", "rb").read())
        except OSError:
            pass
    """
    assert says(code).split() == ["HOME", "LANG", "PATH", "False"]


# Other processes.


@linux
def test_other_processes_cannot_be_killed() -> None:
    code = """
    import os, signal
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
        os.kill(os.getppid(), number)
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass
    print("still here")
    """
    assert says(code) == "still here"


@linux
def test_other_processes_are_not_visible() -> None:
    code = f"""
    import ctypes, os
    print(*filter(str.isdigit, os.listdir("/proc")))
    libc = ctypes.CDLL(None, use_errno=True)
    print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())
    for name in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/fd/0",
                 "/proc/{os.getpid()}/status"):
        try:
            open(name).close()
            print("opened", name)
        except OSError:
            pass
    """
    assert says(code).splitlines() == ["1 2", "-1 1"]


@linux
def test_no_namespace_or_user_can_be_had() -> None:
    code = """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    print(libc.unshare(0x10000000), libc.mount(b"t", b"/tmp", b"tmpfs", 0, None))
    print(libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x10000011, 0, 0, 0, 0))
    for call in (os.setuid, os.setgid):
        try:
            call(0)
        except OSError:
            print("no")
    status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
    print(status["CapEff"], status["CapBnd"], status["NoNewPrivs"], status["Seccomp"])
    """
    assert says(code).split() == ["-1", "-1", "-1", "no", "no", "0" * 16, "0" * 16, "1", "2"]


@linux
def test_daemon_does_not_outlive_the_command(token: str) -> None:
    code = f"""
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            open("up-{token}", "w").close()
            time.sleep(1000)
        os._exit(0)
    while not os.path.exists("up-{token}"):
        time.sleep(0.01)
    print("up")
    """
    assert says(code) == "up"
    assert not alive(token)


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_when_forge_is_stopped(token: str, number: int, tmp_path: Path) -> None:
    code = f"import time\nname = {token!r}\nwhile True: time.sleep(1)"
    forge = subprocess.Popen(
        [sys.executable, SCRIPT, code, "600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        # Forge, and the command, which has the code on its command line too.
        while len(alive(token)) < 2:
            assert time.monotonic() < end and forge.poll() is None, forge.communicate()
            time.sleep(0.05)
        forge.send_signal(number)
        forge.communicate(timeout=30)
        while alive(token):
            assert time.monotonic() < end
            time.sleep(0.05)
        # Who is killed cannot tidy up; an empty directory stays.
        assert number == signal.SIGKILL or not list(tmp_path.iterdir())
    finally:
        forge.kill()
        forge.wait()


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
