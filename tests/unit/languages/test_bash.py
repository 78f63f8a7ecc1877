"""Mining shell scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge_cli import mine
from language_sample import finds, survives_damage

SAMPLE = """\
#!/bin/bash
set -euo pipefail
source ./log.sh
. "$DIR/env.sh"

# Looks it up.
# Prints it.
get() { # key
  local key="$1"
  fetch "$key" | sort -u
  if helper a; then log "$(now)"; fi
}

# Makes it.
function make_it {
  get x && cmake .. <<EOF
not a # comment
EOF
}

# Both at once.
function both() ( cd x; ls )

main "$@"
"""


def test_symbols_with_their_comments(tmp_path: Path) -> None:
    found = finds(
        tmp_path,
        "run.sh",
        SAMPLE,
        140,
        {
            "get": ("function", "get()", "Looks it up.\nPrints it.", "# Looks"),
            "make_it": ("function", "function make_it", "Makes it.", "# Makes"),
            "both": ("function", "function both()", "Both at once.", "# Both"),
        },
    )
    assert found["get"].calls == ["fetch", "sort", "helper", "log", "now"]
    assert found["get"].header == "source ./log.sh"
    assert found["make_it"].calls == ["get", "cmake"]


def test_the_line_of_the_interpreter_is_no_comment_of_a_function(tmp_path: Path) -> None:
    text = "#!/bin/sh\n# Goes.\ngo() {\n  run\n}\n"
    finds(tmp_path, "go.sh", text, 40, {"go": ("function", "go()", "Goes.", "# Goes")})


@pytest.mark.parametrize("line", ["#!/bin/sh", "#!/usr/bin/env -S A=1 bash -e", "#! /bin/dash"])
def test_a_script_without_an_ending(tmp_path: Path, line: str) -> None:
    (tmp_path / "run").write_text(f"{line}\nf() {{ g; }}\n")
    (tmp_path / "other").write_text("f() { g; }\n")
    verdicts = []
    chunks = list(mine.run(tmp_path, langs=["bash"], jobs=1, on_reject=verdicts.append))
    assert {(c.path, c.language) for c in chunks} == {("run", "bash")} and not verdicts


def test_damage() -> None:
    survives_damage("bash", SAMPLE)
