"""guard.yaml, its template and page, the guardian's state and lock, its loop and its commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from forge_cli.cli import guard as commands
from forge_cli.core.errors import Busy, ForgeError, UsageError
from forge_cli.core.events import Silent
from forge_cli.guard.config import GuardConfig, folder_of, folders_of, read_config, within_hours
from forge_cli.guard.guardian import LONGEST_REST, guard, rest_after
from forge_cli.guard.records import Cycle, Decision, Drift, Reason
from forge_cli.guard.state import Deployed, Guarded, Spent, State
from forge_cli.guard.template import commented
from forge_cli.guard.watch import Watcher

ROOT = Path(__file__).parents[2]
FORGE = [sys.executable, "-m", "forge_cli", "guard"]


def written(folder: Path, text: str) -> Path:
    file = folder / "guard.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        ("watch:\n  every: 1h\n  debounse: 3s\n", 3, "watch.debounse: unknown", "debounce"),
        ("budgets: {}\n", 1, "budgets: unknown setting", "did you mean budget?"),
        ("repositories:\n  - path: .\n  - pth: x\n", 3, "repositories.1", ""),
        ("repositories: []\n", 1, "repositories: ", "docs/guard.md"),
        ("\nwatch:\n  debounce: soon\n", 3, "'soon' is no time", "docs/guard.md"),
        ("watch: {debounce: 0s}\n", 1, "'0s' is no time", ""),
        ("budget:\n  retrainings: 2\n  time: 3s5h\n", 3, "'3s5h' is no time", ""),
        ("hold_while:\n  hours:\n    - mon 09:00-12:00\n    - lunch\n", 2, "hours 'lunch'", ""),
        ("retrain_when: {drift: 1.5}\n", 1, "retrain_when.drift", ""),
        ("deploy:\n  to: moon\n", 2, "deploy.to: ", ""),
        ("repositories:\n  - path: .\n    settings: {rnk: 4}\n", 3, "unknown setting rnk", ""),
        ("watch: 3\n", 1, "watch: ", ""),
        ("- a\n", 1, "not a mapping", ""),
        ("a: [\n", 2, "not YAML", ""),
        ("watch:\n  every: \x016h\n", 2, "not YAML: special characters", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, words: str, hint: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(UsageError) as error:
        read_config(file)
    assert error.value.message.startswith(f"{file}:{line}: "), error.value.message
    assert words in error.value.message and hint in error.value.hint


def test_nearest_names_where_a_list_is(tmp_path: Path) -> None:
    file = written(tmp_path, "repositories:\n  - path: .\n    nam: x\n")
    with pytest.raises(UsageError, match=r"guard\.yaml:3: repositories\.0\.nam") as error:
        read_config(file)
    assert error.value.hint == "did you mean name?"


def test_defaults_guard_the_files_own_folder(tmp_path: Path) -> None:
    config = read_config(tmp_path / "guard.yaml")
    assert config == read_config(written(tmp_path, ""))
    (repository,) = config.repositories
    assert folder_of(repository, tmp_path / "guard.yaml") == tmp_path.resolve()
    assert config.retrain_when.drift == 0.1 and config.hold_while.on_battery
    gone = config.repositories[0].model_copy(update={"path": "gone"})
    with pytest.raises(UsageError, match="no such folder"):
        folder_of(gone, tmp_path / "guard.yaml")


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("09:00-18:00", [(0, 540), (6, 1079)], [(0, 539), (6, 1080)]),
        ("mon-fri 09:00-18:00", [(0, 540), (4, 600)], [(5, 600), (6, 600)]),
        # Past midnight the hours are of the day on which they began.
        ("fri 22:00-06:00", [(4, 1320), (5, 0), (5, 359)], [(4, 359), (5, 360), (5, 1320), (3, 0)]),
        ("sun-mon 23:00-01:00", [(6, 1400), (0, 30), (0, 1400), (1, 30)], [(6, 30), (1, 1400)]),
        ("fri-mon 10:00-24:00", [(4, 600), (6, 1439), (0, 1439)], [(1, 600), (3, 600), (0, 599)]),
        ("sat 12:00-12:00", [(5, 720), (5, 1439), (6, 719)], [(5, 719), (6, 720)]),
    ],
)  # fmt: skip
def test_within_hours(
    hours: str, inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    assert all(within_hours(hours, *moment) for moment in inside)
    assert not any(within_hours(hours, *moment) for moment in outside)


def test_the_template_says_what_the_defaults_are(tmp_path: Path) -> None:
    file = written(tmp_path, commented())
    assert read_config(file) == GuardConfig.model_validate({"repositories": [{"path": "."}]})
    for section, field in GuardConfig.model_fields.items():
        assert f"\n{section}:" in commented()
        inner = getattr(field.annotation, "model_fields", {})
        assert all(f"  # {one.description}" in commented() for one in inner.values())


def test_the_page_has_every_setting() -> None:
    made = subprocess.run(
        [sys.executable, "docs/make_guard.py", "--print"], cwd=ROOT, capture_output=True, check=True
    )
    assert (ROOT / "docs" / "guard.md").read_bytes() == made.stdout
    assert b"| `hold_while.on_battery` | `true` |" in made.stdout


HOLDER = """
import sys
from pathlib import Path
from forge_cli.guard.state import Guarded
with Guarded(Path(sys.argv[1]), "").guarding():
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_one_guardian_for_each_repository(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "")
    assert guarded.name == tmp_path.name and guarded.guardian() is None
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        assert guarded.guardian() == other.pid
        with pytest.raises(Busy, match=f"process {other.pid}") as error, guarded.guarding():
            pass
        assert error.value.transient
        # One look is let in while it waits.
        with guarded.locked():
            assert guarded.guardian() == other.pid
        # However it ends, the lock goes with it.
        other.kill()
        other.wait(30)
    assert guarded.guardian() is None
    with guarded.locked():
        assert guarded.guardian() == os.getpid()
        with pytest.raises(Busy, match="works on it"), Guarded(tmp_path, "").locked():
            pass
    assert guarded.guardian() is None
    assert (tmp_path / ".forge" / ".gitignore").read_text() == "*\n"


def cycle(name: str, outcome: str = "deployed", **values: object) -> Cycle:
    known = {"repository": "r", "name": "r", "started": "2026-11-26T08:00:00+00:00"}
    return Cycle.model_validate({"id": name, "outcome": outcome, **known, **values})


def test_state_and_history_survive_a_crash(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, "r")
    assert guarded.load() == State() and guarded.cycles() == []
    spent = [Spent(time="2026-11-26T08:00:00+00:00", seconds=3.5)]
    state = State(deployed=Deployed(run="runs/a"), cycle=cycle("1"), phase="judged", spent=spent)
    guarded.save(state)
    assert guarded.load() == state

    guarded.add(cycle("1", "held"))
    history = guarded.folder / "history.jsonl"
    whole = history.read_bytes()
    # Cut off in the middle of a line, and in the middle of a character.
    history.write_bytes(whole + whole[:40] + "ü".encode()[:1])
    guarded.add(cycle("2"))
    guarded.add(cycle("1", "refused"))
    assert [(one.id, one.outcome) for one in guarded.cycles()] == [
        ("1", "refused"), ("2", "deployed"),
    ]  # fmt: skip
    drift = Drift(time="t", symbols=3, added=1, changed=0, gone=0, share=1 / 3)
    guarded.add(drift)
    assert guarded.drifts() == [drift] and len(guarded.cycles()) == 2

    (guarded.folder / "state.json").write_text('{"deployed": 3}')
    with pytest.raises(ForgeError, match=r"state\.json") as error:
        guarded.load()
    assert "remove the file" in error.value.hint
    with pytest.raises(ValidationError):
        State.model_validate({"unknown": 1})


class Heard(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def test_a_repository_that_fails_rests_and_the_others_are_guarded(tmp_path: Path) -> None:
    """Three fail, each in its way; one is held back for a moment, and then looked at again."""
    names = ("known", "unexpected", "told", "held")
    for name in names:
        (tmp_path / name).mkdir()
    paths = [tmp_path.resolve() / name for name in names]
    watcher = Watcher(paths, debounce=0.1, every=3600.0, files=False)
    looked: list[str] = []

    def look(folder: Path) -> Cycle:
        looked.append(folder.name)
        if folder.name == "known":
            raise ForgeError("cannot be measured", "mend it")
        if folder.name == "unexpected":
            raise ZeroDivisionError("by zero")
        if folder.name == "told":
            return cycle("1", "failed")
        if looked.count("held") == 2:
            watcher.stop.set()
        hold = Reason(rule="hold_while.hours", says=True, text="t", until="2026-11-26T08:00:00Z")
        decision = Decision(wanted=True, held=True, mode="first", triggers=[], holds=[hold])
        return cycle("2", "held", decision=decision)

    heard = Heard()
    timer = threading.Timer(30.0, watcher.stop.set)
    timer.start()
    guard(watcher, look, heard)
    timer.cancel()
    assert sorted(looked) == ["held", "held", "known", "told", "unexpected"]
    assert heard.warnings == [
        f"{paths[0]}: cannot be measured; mend it",
        f"{paths[1]}: unexpected ZeroDivisionError: by zero",
    ]


def test_rest_grows_to_an_hour() -> None:
    assert [rest_after(n) for n in (1, 2, 3)] == [60.0, 120.0, 240.0]
    assert rest_after(7) == rest_after(10_000) == LONGEST_REST
    assert timedelta(seconds=LONGEST_REST) == timedelta(hours=1)


def forge(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FORGE, *args], cwd=cwd, env=os.environ | env, capture_output=True, text=True, check=False
    )


def test_init_install_and_uninstall_on_the_command_line(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    made = forge("init", cwd=tmp_path)
    assert made.returncode == 0 and made.stderr.endswith("next: forge guard run\n")
    assert read_config(tmp_path / "guard.yaml").repositories[0].path == "."

    home = {"HOME": str(tmp_path / "home")}
    shown = forge("install", "--dry-run", "--schedule", "launchd", cwd=tmp_path, **home)
    assert shown.returncode == 0 and "<key>LowPriorityIO</key>" in shown.stderr
    assert shown.stdout.startswith("launchctl bootstrap gui/")
    assert not (tmp_path / "home").exists()
    done = forge("install", "--schedule", "hook", "--json", cwd=tmp_path, **home)
    told = json.loads(done.stdout)
    assert [one["action"] for one in told["changes"]] == ["write"] * 3 and told["commands"] == []
    gone = forge("uninstall", "--schedule", "hook", cwd=tmp_path, **home)
    assert gone.returncode == 0 and gone.stderr.count("removed ") == 3


def test_what_commands_refuse(tmp_path: Path) -> None:
    file = tmp_path / "guard.yaml"
    with pytest.raises(UsageError, match="no such file") as error:
        commands.install(config=file)
    assert error.value.hint == "write one with: forge guard init"
    written(tmp_path, "")
    with pytest.raises(UsageError, match="is there already"):
        commands.init(config=file)
    with pytest.raises(UsageError, match="cron: no such thing"):
        commands.uninstall(config=file, schedule=["cron"])
    foreign = "systemd" if sys.platform == "darwin" else "launchd"
    with pytest.raises(UsageError, match=f"{foreign}: not of {sys.platform}"):
        commands.install(config=file, schedule=[foreign])
    assert [one.name for one in tmp_path.iterdir()] == ["guard.yaml"]


def test_two_repositories_are_not_taken_for_one(tmp_path: Path) -> None:
    for folder in ("a/app", "b/app"):
        (tmp_path / folder).mkdir(parents=True)
    file = written(tmp_path, "repositories: [{path: a/app, name: x}, {path: a/../a/app}]\n")
    with pytest.raises(UsageError, match="a/app is there twice"):
        commands.install(config=file, dry_run=True)
    two = "repositories: [{path: a/app}, {path: b/app}]\n"
    with pytest.raises(UsageError, match="both deployed as app"):
        commands.install(config=written(tmp_path, two), dry_run=True)
    file = written(tmp_path, two + "deploy: {to: directory}\n")
    assert len(folders_of(read_config(file), file)) == 2


def test_what_is_gone_can_be_uninstalled(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": ""}
    for name in ("one", "two"):
        subprocess.run(["git", "init", "-q", str(tmp_path / name)], check=True)
    written(tmp_path, "repositories: [{path: one}, {path: two}]\n")
    assert forge("install", cwd=tmp_path, **home).returncode == 0
    shutil.rmtree(tmp_path / "two")
    gone = forge("uninstall", cwd=tmp_path, **home)
    assert gone.returncode == 0 and gone.stderr.count("removed ") == 4, gone.stderr
    assert forge("install", cwd=tmp_path, **home).returncode == 2
    (tmp_path / "two").mkdir()
    assert forge("install", cwd=tmp_path, **home).returncode == 0
    (tmp_path / "guard.yaml").unlink()
    gone = forge("uninstall", cwd=tmp_path, **home)
    assert gone.returncode == 0 and gone.stderr.count("removed ") == 1, gone.stderr


def test_run_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    """A real look at a real repository, held back for ever; then the guardian is told to end."""
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True)
    (tmp_path / "repo" / "a.py").write_text('def f(x):\n    """Doubles."""\n    return 2 * x\n')
    text = "repositories: [{path: repo}]\nwatch: {debounce: 1s}\n"
    text += 'hold_while: {hours: ["00:00-24:00"]}\n'
    written(tmp_path, text)
    process = subprocess.Popen([*FORGE, "run"], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    with process as running:
        assert running.stderr is not None
        lines, told = [], False
        for line in running.stderr:
            lines.append(line)
            # Once, though a line whose print was interrupted comes again.
            if "never over" in line and not told:
                running.send_signal(signal.SIGTERM)
                told = True
        assert running.wait(60) == 0, "".join(lines)
    assert lines[-1] == "next: forge guard status\n" and "ended; the models" in lines[-2]
    (one,) = Guarded(tmp_path.resolve() / "repo", "").cycles()
    assert one.outcome == "held" and one.mode == "first"
