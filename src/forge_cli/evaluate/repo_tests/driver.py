"""Runs one test command in the sandbox and tells how it ended.

Run as `python -I -S -c TEXT` by `trials.py`; it stands alone, on the standard library, because
the sandbox shows no source of Forge. Standard input carries the order as JSON: {"command": list,
"junit": bool, "word": text}. The last line of standard output is the word and {"code": exit code,
"passed": tests that passed in pytest's own report or null, "said": end of the output}. The word
is not shown to the command, which cannot write that line in its place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

_SAID = 2000


def main() -> None:
    """Read the order, run the command, print the line."""
    order = json.load(sys.stdin)
    # What the command starts could still read the word there.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    command = order["command"]
    report = Path(tempfile.mkdtemp()) / "report.xml"
    if order["junit"]:
        command = [*command, f"--junitxml={report}"]
    here = Path.cwd()
    environment = dict(os.environ)
    # The copy, not a package of that name which is installed; src/ as many repositories have it.
    environment["PYTHONPATH"] = os.pathsep.join([str(here), str(here / "src")])
    environment |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryFile() as output:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
                check=False,
            ).returncode  # fmt: skip
        except OSError as error:
            code = 127
            output.write(f"{command[0]}: {error.strerror}".encode())
        output.seek(max(0, output.seek(0, os.SEEK_END) - _SAID))
        said = output.read().decode("utf-8", "replace")
    ended = {"code": code, "passed": _passed(report), "said": said}
    print(f"\n{order['word']} {json.dumps(ended)}")


def _passed(report: Path) -> int | None:
    """Tests in pytest's report that did not fail and were not skipped; None without a report."""
    try:
        # Not the cases: one that was left by pytest.exit() stands there like one that passed.
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return None
    bad = ("failures", "errors", "skipped")
    return sum(int(s.get("tests", 0)) - sum(int(s.get(n, 0)) for n in bad) for s in suites)


if __name__ == "__main__":
    main()
