"""The launcher of a jail on Linux: new namespaces and a new root around one command.

Run as `python -I -S jail.py FD`, by `linux.py`; it stands alone, on the standard library. Three
processes: the launcher stays outside and waits, the keeper is process 1 of the new namespace
(when it ends, the kernel ends all others), the command is what it starts.

Standard input carries one line of JSON, the order; when it closes, all of it is killed. FD
takes lines of JSON: {"keeper": pid}, {"started": true}, then {"exit": code} or {"signal":
number}, with the CPU seconds; or {"error": text}.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

assert sys.platform == "linux"

NOBODY = 65534

_LIBC = ctypes.CDLL(None, use_errno=True)
# sched.h
_NEWNS, _NEWUTS, _NEWIPC = 0x20000, 0x4000000, 0x8000000
_NEWUSER, _NEWPID, _NEWNET = 0x10000000, 0x20000000, 0x40000000
# sys/mount.h
_NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE, _DETACH = 2, 4, 8, 0x1000, 0x4000, 0x40000, 2
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
# sys/prctl.h
_PDEATHSIG, _DUMPABLE, _SECCOMP, _CAPBSET_DROP, _NO_NEW_PRIVS, _AMBIENT = 1, 4, 22, 24, 38, 47
_SEALED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_CAPABILITIES_3, _SYS_ADMIN = 0x20080522, 21


def main() -> None:
    """Read the order, start the keeper, and wait for it or for the end of standard input."""
    status = int(sys.argv[1])
    os.set_inheritable(status, False)
    order = json.loads(sys.stdin.buffer.readline())
    try:
        alone = _unshare()
        alive, held = os.pipe()
        keeper = os.fork()
        if keeper == 0:
            os.close(held)
            _keep(order, status, alive, alone)
        os.close(alive)
        _say(status, keeper=keeper)
        ended = os.pidfd_open(keeper)
    except OSError as error:
        _say(status, error=str(error))
        sys.exit(1)
    if 0 in select.select([0, ended], [], [])[0]:
        os.kill(keeper, signal.SIGKILL)
    # The wait is over only when the whole namespace is gone.
    os.waitpid(keeper, 0)


def _unshare() -> bool:
    """Enter new namespaces; the next child is process 1. Says whether a user namespace is one."""
    spaces = _NEWNS | _NEWPID | _NEWNET | _NEWIPC | _NEWUTS
    if os.geteuid() == 0 and _capable() and _is_mapped(NOBODY):
        _check("unshare", _LIBC.unshare(spaces))
        return False
    user, group = os.geteuid(), os.getegid()
    _check("unshare (user namespace)", _LIBC.unshare(spaces | _NEWUSER))
    _map(user, group)
    return True


def _capable() -> bool:
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff"))
    return bool(held >> _SYS_ADMIN & 1)


def _is_mapped(user: int) -> bool:
    """Whether there is such a user here: a root inside a container may know itself alone."""
    lines = [map(int, line.split()) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(first <= user < first + count for first, _, count in lines)


def _map(user: int, group: int) -> None:
    """Make ids of the parent's namespace `nobody` in this one."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        _write(Path("/proc/self", name), text)


def _keep(order: dict[str, Any], status: int, alive: int, alone: bool) -> NoReturn:
    """Be process 1: build the root, start the command, report how it ended."""
    try:
        # Process 1 gets no signal from inside unless it has a handler, as Python has for SIGINT.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _prctl(_PDEATHSIG, signal.SIGKILL)
        _build(order)
        _drop(alone)
        # A change of user forgets this; a launcher that is dead by now has closed the pipe.
        _prctl(_PDEATHSIG, signal.SIGKILL)
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)
        os.chdir(order["work"])
        for name, text in order["files"].items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(text.encode("utf-8", "surrogatepass"))
        _say(status, started=True)
        command = os.fork()
        if command == 0:
            _start(order, status)
        _wait(command, status)
    except Exception as error:
        _say(status, error=str(error))
    finally:
        os._exit(1)


def _wait(command: int, status: int) -> None:
    """Collect every child that ends, until the command itself does."""
    while True:
        pid, ended, usage = os.wait4(-1, 0)
        if pid == command:
            how, number = "exit", os.waitstatus_to_exitcode(ended)
            if number < 0:
                how, number = "signal", -number
            _say(status, **{how: number, "cpu": usage.ru_utime + usage.ru_stime})
            return


def _build(order: dict[str, Any]) -> None:
    """Make the new root, on a tmpfs of limited size, and leave the old one."""
    root, size = order["root"], order["limits"]["disk_bytes"]
    _mount("none", "/", None, _REC | _PRIVATE)
    # Empty files cost memory too.
    inodes = size // 4096 + 1024
    options = f"size={size},nr_inodes={inodes},mode=0755"
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, options)
    for name, mode in ((order["work"], 0o700), ("/tmp", 0o1777), ("/dev/shm", 0o1777)):
        path = Path(root + name)
        path.mkdir(parents=True)
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        _mount(str(path), str(path), None, _BIND)
    for name in ("null", "zero", "urandom"):
        _show(root, f"/dev/{name}", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NOEXEC)
    for name in order["read_only"]:
        _show(root, name, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)
    for name, text in order["system_files"].items():
        path = Path(root + name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    Path(root, "proc").mkdir()
    _mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _protect(root, _ATTR_RDONLY, 0)
    os.chdir(root)
    _check("pivot_root", _LIBC.pivot_root(b".", b"."))
    _check("umount", _LIBC.umount2(b".", _DETACH))
    os.chdir("/")
    _check("sethostname", _LIBC.sethostname(b"sandbox", 7))


def _show(root: str, name: str, attributes: int) -> None:
    """Bind a file or directory of the machine to the same path of the new root."""
    source, target = Path(name), Path(root + name)
    if source.is_symlink() and source.parent == Path("/"):
        # /lib → usr/lib; an absolute link would lead out of the root while it is built.
        target.symlink_to(str(source.readlink()).lstrip("/"))
        return
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(name, str(target), None, _BIND | _REC)
    _protect(str(target), attributes, _AT_RECURSIVE)


def _drop(alone: bool) -> None:
    """Become nobody, in a user namespace where there can be one, without any capability."""
    _write(Path("/proc/self/oom_score_adj"), "1000")
    _forgo()
    if not alone:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # The kernel counts processes by user and namespace; without one of its own, this jail
        # shares the count with all others. Writing the map needs a process that can be dumped.
        _prctl(_DUMPABLE, 1)
        if _LIBC.unshare(_NEWUSER) == 0:
            _map(NOBODY, NOBODY)
            alone = True
            # A new namespace begins with all of them.
            _forgo()
    if alone:
        _write(Path("/proc/sys/user/max_user_namespaces"), "0")
    _prctl(_NO_NEW_PRIVS, 1)
    _prctl(_AMBIENT, 4)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    _check("capset", _LIBC.capset(header, (ctypes.c_uint32 * 6)()))
    # Nobody else may trace the keeper or read its memory; the command is dumpable again.
    _prctl(_DUMPABLE, 0)


def _forgo() -> None:
    """See that no program that is started later can have a capability."""
    capability = 0
    while _LIBC.prctl(_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1


def _start(order: dict[str, Any], status: int) -> NoReturn:
    """Become the command."""
    try:
        given = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(os.dup(given), "wb") as file:
            file.write(order["stdin"].encode("utf-8", "surrogatepass"))
        # A file in memory has no size limit: nothing more may be written to it.
        fcntl.fcntl(given, fcntl.F_ADD_SEALS, _SEALED)
        os.lseek(given, 0, os.SEEK_SET)
        os.dup2(given, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        limits = order["limits"]
        cpu = math.ceil(limits["cpu_seconds"])
        for kind, soft, hard in (
            (resource.RLIMIT_CPU, cpu, cpu + 1),
            (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
            (resource.RLIMIT_FSIZE, limits["disk_bytes"], limits["disk_bytes"]),
            # The keeper counts as one.
            (resource.RLIMIT_NPROC, limits["processes"] + 1, limits["processes"] + 1),
            (resource.RLIMIT_NOFILE, 256, 256),
            # 0 would still feed a core_pattern that is a program; 1 stops that too.
            (resource.RLIMIT_CORE, 1, 1),
            (resource.RLIMIT_MSGQUEUE, 0, 0),
        ):
            resource.setrlimit(kind, (soft, hard))
        _filter(bytes.fromhex(order["filter"]))
        command = order["command"]
        os.execvpe(command[0], command, order["environment"])
    except Exception as error:
        _say(status, error=f"{order['command'][0]}: {error}")
    finally:
        os._exit(127)


def _filter(program: bytes) -> None:
    """Refuse the system calls that `syscalls.py` lists, for this process and its children."""

    class Program(ctypes.Structure):
        _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_char_p))

    made = Program(len(program) // 8, program)
    _check("seccomp", _LIBC.prctl(_SECCOMP, 2, ctypes.byref(made), 0, 0))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    done = _LIBC.mount(
        os.fsencode(source), os.fsencode(target), kind and kind.encode(), ctypes.c_ulong(flags),
        options.encode(),
    )  # fmt: skip
    _check(f"mount {target}", done)


def _protect(target: str, attributes: int, flags: int) -> None:
    """Set attributes of a mount; with AT_RECURSIVE, of all that is mounted below it too."""
    set_clear = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    done = _LIBC.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), flags, ctypes.byref(set_clear),
        ctypes.c_size_t(32),
    )  # fmt: skip
    _check(f"mount_setattr {target}", done)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}") from None


def _prctl(option: int, value: int) -> None:
    _check(f"prctl {option}", _LIBC.prctl(option, value, 0, 0, 0))


def _check(what: str, result: int) -> None:
    """Raises OSError, named after the call, where the kernel refused it."""
    if result < 0:
        raise OSError(f"{what}: {os.strerror(ctypes.get_errno())}")


def _say(status: int, **message: Any) -> None:
    os.write(status, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
