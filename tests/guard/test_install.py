"""Hooks, units and agents: put there once, run by a real git, and taken away whole."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from forge_cli.core.errors import ForgeError
from forge_cli.guard import hooks, services
from forge_cli.guard.install import Kind, Plan, apply, plan_install, plan_uninstall, run_commands
from forge_cli.guard.watch import NUDGE

HOOK: list[Kind] = ["hook"]


def git(folder: Path, *args: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *who, *args]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stderr


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    # A name that a shell would take apart.
    folder = tmp_path / "it's a $repo"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder.resolve()


def installed(*repositories: Path, kinds: list[Kind] = HOOK, **environ: str) -> Plan:
    plan = plan_install(repositories[0] / "guard.yaml", repositories, kinds, environ)
    apply(plan)
    return plan


def uninstalled(*repositories: Path, kinds: list[Kind] = HOOK, **environ: str) -> Plan:
    plan = plan_uninstall(repositories[0] / "guard.yaml", repositories, kinds, environ)
    apply(plan)
    return plan


def nudged(repository: Path) -> bool:
    """Whether the guardian was told since this was last asked."""
    nudge = repository / NUDGE
    told = nudge.exists()
    nudge.unlink(missing_ok=True)
    return told


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(f.relative_to(folder)): (f.read_bytes(), f.stat().st_mode)
        for f in folder.rglob("*") if f.is_file()
    }  # fmt: skip


def test_commits_merges_and_rebases_tell_the_guardian(repo: Path) -> None:
    before = files_of(repo / ".git" / "hooks")
    plan = installed(repo)
    assert [change.action for change in plan.changes] == ["write"] * 3
    assert git(repo, "commit", "-q", "--allow-empty", "-m", "second") == ""
    assert nudged(repo)
    git(repo, "switch", "-q", "-c", "side")
    git(repo, "commit", "-q", "--allow-empty", "-m", "third")
    git(repo, "switch", "-q", "main")
    assert nudged(repo)
    git(repo, "merge", "-q", "side")
    assert nudged(repo)
    git(repo, "commit", "-q", "--allow-empty", "--amend", "-m", "fourth")
    assert nudged(repo)
    assert git(repo, "status", "--porcelain") == ""

    again = installed(repo)
    assert [change.action for change in again.changes] == ["unchanged"] * 3
    assert [change.action for change in uninstalled(repo).changes] == ["remove"] * 3
    assert files_of(repo / ".git" / "hooks") == before
    assert uninstalled(repo).changes == []


def test_a_hook_cannot_fail_a_commit(repo: Path) -> None:
    installed(repo)
    shutil.rmtree(repo / ".forge")
    assert git(repo, "commit", "-q", "--allow-empty", "-m", "second") == ""
    # A folder where the nudge should be: writing it fails.
    (repo / NUDGE).mkdir(parents=True)
    for name in hooks.NAMES:
        file = repo / ".git" / "hooks" / name
        done = subprocess.run([str(file)], cwd=repo, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_what_a_hook_did_before_it_does_still(repo: Path) -> None:
    file = repo / ".git" / "hooks" / "post-commit"
    # Ends by itself, so nothing after it would run; no line break at its end.
    text = '#!/usr/bin/env bash\nset -eu\necho ran >"$PWD/ran"\nexit 3'
    file.write_text(text)
    file.chmod(0o750)
    installed(repo)
    git(repo, "commit", "-q", "--allow-empty", "-m", "second")
    assert nudged(repo) and (repo / "ran").read_text() == "ran\n"
    done = subprocess.run([str(file)], cwd=repo, check=False)
    assert done.returncode == 3
    assert file.stat().st_mode & 0o777 == 0o750
    uninstalled(repo)
    assert file.read_text() == text and file.stat().st_mode & 0o777 == 0o750


def test_lines_that_were_added_to_our_hook_stay(repo: Path) -> None:
    installed(repo)
    file = repo / ".git" / "hooks" / "post-merge"
    file.write_text(file.read_text() + "echo mine\n")
    uninstalled(repo)
    assert file.read_text() == "#!/bin/sh\necho mine\n"
    assert not (file.parent / "post-commit").exists()


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"#!/usr/bin/env python3\nprint(1)\n", 0o755, "not of the shell (#!/usr/bin/env python3)"),
        (b"#!/bin/sh\necho\n", 0o644, "not executable"),
        (b"\x7fELF\0\0", 0o755, "a program, not a script"),
        (None, 0, "a link to"),
    ],
)
def test_a_hook_that_is_no_shell_script_is_refused(
    repo: Path, content: bytes | None, mode: int, words: str
) -> None:
    # The last of the hooks: those before it must not be written either.
    file = repo / ".git" / "hooks" / "post-rewrite"
    if content is None:
        (repo / "shared").write_bytes(b"#!/bin/sh\n")
        file.symlink_to(repo / "shared")
    else:
        file.write_bytes(content)
        file.chmod(mode)
    before = files_of(repo / ".git" / "hooks")
    with pytest.raises(ForgeError) as error:
        installed(repo)
    assert words in error.value.message and str(file) in error.value.message and error.value.hint
    assert files_of(repo / ".git" / "hooks") == before and not (repo / ".forge").exists()


def test_one_hooks_folder_for_two_repositories(repo: Path, tmp_path: Path) -> None:
    other, shared = tmp_path / "other", tmp_path / "hooks"
    other.mkdir()
    git(other, "init", "-q")
    for folder in (repo, other):
        git(folder, "config", "core.hooksPath", str(shared))
    plan = installed(repo, other)
    assert len(plan.changes) == 3 and len(list(shared.iterdir())) == 3
    git(other, "commit", "-q", "--allow-empty", "-m", "first")
    assert nudged(other) and not nudged(repo)
    uninstalled(repo)
    git(repo, "commit", "-q", "--allow-empty", "-m", "second")
    git(other, "commit", "-q", "--allow-empty", "-m", "second")
    assert nudged(other) and not nudged(repo)
    uninstalled(other)
    assert list(shared.iterdir()) == []


def test_a_worktree_and_a_folder_of_a_repository(repo: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    git(repo, "worktree", "add", "-q", str(tree))
    part = tree / "services"
    part.mkdir()
    installed(tree, part)
    git(tree, "commit", "-q", "--allow-empty", "-m", "second")
    assert nudged(tree) and nudged(part)
    # The hooks are the main one's too, but not the guardian.
    git(repo, "commit", "-q", "--allow-empty", "-m", "third")
    assert not nudged(tree) and not nudged(part)


def test_hooks_that_belong_to_the_repository_are_left_alone(repo: Path) -> None:
    git(repo, "config", "core.hooksPath", ".husky")
    with pytest.raises(ForgeError, match=r"core\.hooksPath"):
        installed(repo)
    assert not (repo / ".husky").exists()
    (repo / ".gitignore").write_text(".husky/\n")
    installed(repo)
    git(repo, "commit", "-q", "--allow-empty", "-m", "second")
    assert nudged(repo)


def test_where_no_hooks_are_run_none_are_written(repo: Path) -> None:
    git(repo, "config", "core.hooksPath", os.devnull)
    with pytest.raises(ForgeError, match=f"{os.devnull}: by core.hooksPath no hooks are run"):
        installed(repo)
    assert uninstalled(repo).changes == []


def test_without_git_there_are_no_hooks(tmp_path: Path) -> None:
    plan = installed(tmp_path)
    assert plan.changes == [] and "no git there" in plan.left_out[0]


def test_a_unit_of_systemd(repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    place = {"HOME": str(home), "PATH": '/opt/100% "mine":/bin', "FORGE_TOKEN": "secret"}
    plan = installed(repo, kinds=["systemd"], **place)
    (file,) = (home / ".config" / "systemd" / "user").iterdir()
    name = services.name_of(repo / "guard.yaml")
    assert file.name == f"{name}.service"
    text = file.read_text()
    assert "secret" not in text and "IOSchedulingClass=idle" in text
    assert [command[2:] for command in plan.commands] == [
        ("daemon-reload",), ("enable", file.name), ("restart", file.name),
    ]  # fmt: skip
    if tool := shutil.which("systemd-analyze"):
        checked = subprocess.run(
            [tool, "verify", "--user", str(file)], capture_output=True, text=True, check=False,
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)},
        )  # fmt: skip
        assert checked.returncode == 0 and file.name not in checked.stderr, checked.stderr
    assert installed(repo, kinds=["systemd"], **place).changes[0].action == "unchanged"
    wanted = file.parent / "default.target.wants" / file.name
    wanted.parent.mkdir()
    wanted.symlink_to(file)
    gone = uninstalled(repo, kinds=["systemd"], **place)
    assert ("systemctl", "--user", "stop", file.name) in gone.commands
    assert not file.exists() and not wanted.is_symlink() and wanted.parent.is_dir()
    assert uninstalled(repo, kinds=["systemd"], **place).commands == []


def test_an_agent_of_launchd(repo: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    place = {"HOME": str(home), "PATH": "/opt/homebrew/bin:/bin", "FORGE_TOKEN": "secret"}
    plan = installed(repo, kinds=["launchd"], **place)
    (file,) = (home / "Library" / "LaunchAgents").iterdir()
    told = plistlib.loads(file.read_bytes())
    settings = repo / "guard.yaml"
    assert told["Label"] == file.stem == services.name_of(settings)
    assert told["ProgramArguments"] == [
        sys.executable, "-m", "forge_cli", "guard", "run", "-c", str(settings),
    ]  # fmt: skip
    assert told["EnvironmentVariables"] == {"PATH": "/opt/homebrew/bin:/bin"}
    assert told["LowPriorityIO"] and told["ProcessType"] == "Background"
    assert told["KeepAlive"] == {"SuccessfulExit": False}
    assert Path(told["StandardErrorPath"]).parent == home / "Library" / "Logs"
    domain = f"gui/{os.getuid()}"
    assert plan.commands == [("launchctl", "bootstrap", domain, str(file))]
    # Once more: the one that may be loaded has to go first.
    again = installed(repo, kinds=["launchd"], **place)
    assert not plan.may_fail and again.may_fail == [
        ("launchctl", "bootout", f"{domain}/{file.stem}")
    ]
    gone = uninstalled(repo, kinds=["launchd"], **place)
    assert gone.commands == [("launchctl", "bootout", f"{domain}/{file.stem}")]
    assert not file.exists()


def test_a_command_that_fails_is_told_with_what_it_said() -> None:
    plan = Plan(commands=[("sh", "-c", "echo wrong >&2; exit 4")])
    with pytest.raises(ForgeError, match="exit 4: wrong"):
        run_commands(plan)
    run_commands(Plan(may_fail=plan.commands))
    with pytest.raises(ForgeError, match="No such file"):
        run_commands(Plan(commands=[("no-such-command-here",)]))
