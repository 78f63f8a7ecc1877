"""Renew the table of settings in docs/guard.md; a test fails when it has drifted.

With --print the whole page goes to stdout and the file stays as it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from forge_cli.guard.template import table

PAGE = Path(__file__).parent / "guard.md"
BEGIN = "<!-- settings: made by python docs/make_guard.py -->\n"
END = "<!-- end of settings -->\n"


def page(text: str) -> str:
    """The page with a new table between its marks."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return head + BEGIN + table() + END + tail


if __name__ == "__main__":
    made = page(PAGE.read_text(encoding="utf-8"))
    if "--print" in sys.argv:
        print(made, end="")
    else:
        PAGE.write_text(made, encoding="utf-8")
