"""A repository's history, commit by commit, under `forge guard`: what it trains, deploys, refuses.

    python benchmarks/guard_replay.py REPO START [--commits 100] [--work DIR] [--tiny]

REPO is a git repository (its history is read, it is not changed), START the commit or tag at which
the first model is trained. Then each following commit is checked out and looked at, with its own
date as the clock. Between them, of its own making:

- docs: the docstrings of the code are dealt out to other definitions; corrupt: the largest source
  file is half noise. The guardian is made to retrain (--force): neither may be deployed.
- worse: the served file is replaced by one of adapters with noise. It must be rolled back.
- kills: in retrainings a guardian is killed with SIGKILL at random moments; the old model must be
  served after each, and the next guardian must end what was begun.

The model is the embedded one, served from a folder by llama.cpp; what it answers is judged on
held-out code. Started again with the same --work it goes on. --tiny: a random model of two layers,
which learns no more than the form of answers, for the course of things alone; as it never quotes
rightly, its gate on quotes is off, on new code it must be no worse, and `worse` is a served file
that is damaged.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

DRIFT = 0.15
GUARD = {
    "retrain_when": {"drift": DRIFT},
    "hold_while": {"on_battery": False},
    "budget": {"retrainings": 1000, "time": "1000h"},
    # Few held-out answers, of a small model that was trained for minutes.
    "quality_gates": {"quotes": 0.3},
    "deploy": {"to": "directory", "smoke_every": "10000h"},
}
SETTINGS = {
    "layers": 16, "rank": 8, "max_tokens": 1024, "distractors": 1, "questions": 2,
    "valid_rows": 12, "valid_every": 40, "answer_rows": 16, "condition_rows": 2, "eval_rows": 40,
    "quant": ["q8_0"], "retention_rows": 0, "importance_rows": 0, "smoke_questions": 4,
    "conditions": ["given"], "sides": ["base", "tuned"],
}  # fmt: skip
TINY = {
    "layers": 0, "rank": 4, "learning_rate": 5e-3, "max_tokens": 4096,
    "questions": 2, "valid_every": 40, "quant": ["f16"], "parity": False, "jobs": 2,
}  # fmt: skip
TINY_GATES = {"quotes": None, "parity": False, "new": "not worse"}
KILLS = 2  # of a retraining, in each of the first KILLED ones after the first model
KILLED = 2


class Replay:
    """The repository that is played, and what came of each look."""

    def __init__(
        self, source: str, start: str, commits: int, work: Path, *, tiny: bool = False
    ) -> None:
        self.work, self.tree, self.tiny = work, work / "repo", tiny
        self.file, self.log = work / "guard.yaml", work / "replay.jsonl"
        if not self.tree.exists():
            subprocess.run(["git", "clone", "-q", source, self.tree], check=True)
        main = self.git("rev-parse", "--verify", "origin/HEAD").strip()
        after = self.git("rev-list", "--reverse", "--first-parent", f"{start}..{main}").split()
        first = self.git("rev-parse", f"{start}^{{commit}}").strip()
        self.commits = [first, *after[:commits]]
        guard, settings = GUARD, SETTINGS
        if tiny:
            guard = GUARD | {"quality_gates": TINY_GATES}
            settings = SETTINGS | TINY | {"model": str(tiny_model(work / "model"))}
        self.file.write_text(
            yaml.safe_dump(guard | {"repositories": [{"path": "repo", "settings": settings}]})
        )
        self.draw = random.Random(0)
        self.kills, self.moments = 0, (2, 9) if tiny else (3, 45)

    def git(self, *arguments: str) -> str:
        """What git says in the played repository."""
        who = ["-c", "user.name=replay", "-c", "user.email=replay@localhost"]
        return subprocess.run(
            ["git", *who, "-C", str(self.tree), *arguments], check=True, stdout=subprocess.PIPE,
            text=True,
        ).stdout  # fmt: skip

    def play(self) -> None:
        """Each commit, and between them what is done to it."""
        done = [json.loads(line) for line in self.lines() if line]
        seen = {one["commit"] for one in done if not one["event"]}
        events = {one["event"] for one in done}
        deployed = sum(one["outcome"] == "deployed" for one in done)
        for number, commit in enumerate(self.commits):
            if commit in seen:
                continue
            self.git("checkout", "-q", "-f", commit)
            now = datetime.fromisoformat(self.git("log", "-1", "--format=%cI").strip())
            kills = KILLS if 1 <= deployed <= KILLED else 0
            cycle = self.look(now, kills)
            self.keep(number, commit, "", cycle)
            deployed += cycle["outcome"] == "deployed"
            if cycle["outcome"] != "deployed":
                continue
            for event, count in (("docs", 2), ("corrupt", 3), ("worse", 4)):
                if deployed >= count and event not in events:
                    events.add(event)
                    later = now + timedelta(minutes=1)
                    self.keep(number, commit, event, getattr(self, event)(later))
                    break

    def lines(self) -> list[str]:
        """What was kept of the looks before."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def keep(self, number: int, commit: str, event: str, cycle: dict[str, Any]) -> None:
        """Write a look down, and show it if something happened."""
        drift = cycle.get("drift") or {}
        row = {
            "number": number, "commit": commit, "event": event, "outcome": cycle["outcome"],
            "mode": cycle.get("mode"), "share": drift.get("share", 0.0), "cycle": cycle,
        }  # fmt: skip
        with open(self.log, "a") as stream:
            stream.write(json.dumps(row) + "\n")
        if event or cycle["outcome"] != "nothing to do":
            lost = [gate["name"] for gate in cycle.get("gates", []) if not gate["passed"]]
            print(
                f"{number:4} {commit[:7]} {event:8}{row['share']:6.3f}  {cycle['outcome']:12}"
                f"{row['mode'] or '':12}{cycle.get('seconds', 0):6.0f}s  {' '.join(lost)}",
                flush=True,
            )

    def look(self, now: datetime, kills: int = 0, *, force: bool = False) -> dict[str, Any]:
        """One look, by a process that may be killed and begun again; the cycle."""
        command = [sys.executable, __file__, "--look", str(self.file), now.isoformat()]
        command += ["--force"] * force
        while True:
            before = self.served()
            with open(self.work / "guard.log", "a") as log:
                begun = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            wait = self.draw.uniform(*self.moments) if kills else None
            try:
                told, _ = begun.communicate(timeout=wait)
            except subprocess.TimeoutExpired:
                begun.kill()
                begun.communicate()
                kills, self.kills = kills - 1, self.kills + 1
                assert self.served() == before, "a guardian that was killed changed what is served"
                continue
            assert not begun.returncode, "see guard.log"
            return dict(json.loads(told.splitlines()[-1]))

    def served(self) -> str:
        """The version, and that its file is there."""
        link = self.tree / ".forge" / "guard" / "served" / "current"
        if not link.is_symlink():
            return ""
        assert list(link.glob("*.gguf")), "what is served is gone"
        return os.readlink(link)  # noqa: PTH115

    def docs(self, now: datetime) -> dict[str, Any]:
        """Every docstring stands on another definition."""
        for file in sorted(self.tree.glob("*/*.py")):
            text = file.read_text(encoding="utf-8")
            parts = text.split('"""')
            spoken = parts[1::2]
            self.draw.shuffle(spoken)
            parts[1::2] = spoken
            file.write_text('"""'.join(parts), encoding="utf-8")
        return self._committed(now)

    def corrupt(self, now: datetime) -> dict[str, Any]:
        """The second half of the largest source file is noise."""
        file = max(self.tree.glob("*/*.py"), key=lambda f: f.stat().st_size)
        data = file.read_bytes()
        half = len(data) // 2
        file.write_bytes(data[:half] + bytes(self.draw.choices(b"(){}:;=#\"'\n abcxyz", k=half)))
        return self._committed(now)

    def _committed(self, now: datetime) -> dict[str, Any]:
        """A look at what was done, as a commit that is gone afterwards."""
        before = self.git("rev-parse", "HEAD").strip()
        self.git("commit", "-qam", "an update that is wrong")
        found = self.look(now, force=True)
        self.git("checkout", "-q", "-f", before)
        return found

    def worse(self, now: datetime) -> dict[str, Any]:
        """The served file is of adapters with noise; the clock is past the next smoke questions."""
        served = self.tree / ".forge" / "guard" / "served" / self.served()
        run = self.tree / ".forge" / "guard" / "runs" / served.name
        target = next(served.glob("*.gguf"))
        harmed = b"" if self.tiny else harm(run, self.work / "harmed").read_bytes()
        target.unlink()  # a link of the run's own file, which stays
        target.write_bytes(harmed)
        text = self.file.read_text()
        self.file.write_text(text.replace("10000h", "1s"))
        found = self.look(now)
        self.file.write_text(text)
        return found


def tiny_model(folder: Path) -> Path:
    """The tests' random Llama."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_train import save_model

    return folder if folder.exists() else save_model(folder, max_position_embeddings=8192)


def harm(run: Path, target: Path) -> Path:
    """The GGUF of a run whose adapters have noise of twice their spread."""
    from forge_cli import export
    from forge_cli.models.adapters import read_adapters, save_arrays
    from forge_cli.models.backend import mx

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run / "adapters", target / "adapters")
    mx.random.seed(0)
    tuned = read_adapters(run / "adapters").arrays
    noisy = {k: v + 2 * mx.std(v) * mx.random.normal(v.shape) for k, v in tuned.items()}
    save_arrays(target / "adapters" / "adapters.safetensors", noisy)
    files, _ = export.run(
        adapters=target / "adapters", out=target, name="harmed", quants=["q8_0"], parity=False
    )
    return Path(files[0])


def look(file: Path, now: datetime, *, force: bool) -> None:
    """One look, its cycle on stdout; in a process of its own."""
    from forge_cli.cli._output import Output
    from forge_cli.guard.config import read_config
    from forge_cli.guard.cycle import look as look_once

    config = read_config(file)
    repository = config.repositories[0]
    cycle = look_once(config, file, repository, Output(), now=lambda: now, force=force)
    print(cycle.model_dump_json())


def summary(replay: Replay, seconds: float) -> None:
    """What the looks show, counted from what was written down."""
    rows = [json.loads(line) for line in replay.lines()]
    plain = [row for row in rows if not row["event"]]
    acted = [r for r in plain if r["outcome"] not in ("nothing to do", "held")]
    over = [r for r in plain if r["mode"] == "first" or r["share"] > DRIFT]
    deployed = [row for row in rows if row["outcome"] == "deployed"]
    passed = sum(all(gate["passed"] for gate in row["cycle"]["gates"]) for row in deployed)
    print(f"\n{len(plain)} commits in {seconds / 60:.0f} minutes; {replay.kills} guardians killed")
    same = [r["commit"] for r in over] == [r["commit"] for r in acted]
    print(f"drift over {DRIFT} at {len(over)}, acted at {len(acted)}, the same ones: {same}")
    print(
        "outcomes:", ", ".join(f"{n} {o}" for o, n in Counter(r["outcome"] for r in acted).items())
    )
    print(f"deployed models that passed every gate: {passed} of {len(deployed)}")
    for row in rows:
        if row["event"]:
            why = row["cycle"]["error"].partition(";")[0]
            print(f"{row['event']}: {row['outcome']} ({why[:150]})")
    for mode in ("first", "incremental", "afresh"):
        taken = sorted(r["cycle"]["seconds"] for r in deployed if r["mode"] == mode)
        if taken:
            print(f"{mode}: {len(taken)} models, median {taken[len(taken) // 2]:.0f} s each")


def main() -> None:
    """Play, or look once."""
    if sys.argv[1:2] == ["--look"]:
        moment = datetime.fromisoformat(sys.argv[3])
        look(Path(sys.argv[2]), moment, force="--force" in sys.argv)
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repo")
    parser.add_argument("start")
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="replay-"))
    work.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    replay = Replay(asked.repo, asked.start, asked.commits, work, tiny=asked.tiny)
    replay.play()
    summary(replay, time.monotonic() - begun)


if __name__ == "__main__":
    main()
