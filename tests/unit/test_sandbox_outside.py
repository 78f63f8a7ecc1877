"""Hostile code, really run: it finds nothing outside the sandbox, and leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxed import SCRIPT, alive, here, linux, new_token, says

pytestmark = here


@pytest.fixture
def token() -> str:
    return new_token()


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
