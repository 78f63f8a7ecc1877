"""What mining loses of real trees, per language: bytes, comments torn off, files that take long.

python benchmarks/mining_loss.py [-v] [TREE...]      (none: the standard library of Python)

A comment is torn when a chunk begins right under its line, by the lines, not by the grammar; a
cut inside of what is larger than a chunk is counted apart. `took` is in milliseconds.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

from forge_cli.core.records import Chunk, Verdict
from forge_cli.mine.chunks import cut_file
from forge_cli.mine.files import find_tree, read
from forge_cli.mine.languages import language_of, refine

LIMIT = 1500
HASH = {"python", "ruby", "bash", "yaml", "make", "toml", "perl", "r", "elixir", "cmake", "tcl"}
DASH = {"lua", "sql", "haskell", "ada", "vhdl"}
DOCUMENTS = {"markdown", "text", "rst", "latex", "html", "css", "xml"}  # nothing to tear
CLOSES = re.compile(rb"\s*([\])};,]|@?end\b|</|#(end)?(if|else|elif|region|pragma)|[!-/]*\s*$)")


def is_comment(line: bytes, language: str) -> bool:
    """Whether a line is a comment and nothing else, or the end of one."""
    line = line.strip()
    if language in HASH or (language == "php" and line[:1] == b"#"):
        return line == b"=end" or (line[:1] == b"#" and line[:2] not in (b"#!", b"#["))
    if language in DASH:
        return line.startswith(b"--")
    return line[:2] == b"//" or (line[-2:] == b"*/" and (line[:2] == b"/*" or b"/*" not in line))


def torn(chunks: list[Chunk], data: bytes, language: str) -> Counter[str]:
    """Chunks that begin right under a comment that is no deeper than they are."""
    found: Counter[str] = Counter()
    lines = data.split(b"\n")
    for before, chunk in pairwise(chunks):
        above, line = lines[max(chunk.start_line - 2, 0)], lines[chunk.start_line - 1]
        if data[chunk.start_byte - 1] != 10 or CLOSES.match(line):
            continue
        deeper = len(above) - len(above.lstrip()) > len(line) - len(line.lstrip()) + 1
        if is_comment(above, language) and not deeper:
            inside = chunk.part > 1 and before.part == chunk.part - 1
            found["inside" if inside else "torn"] += 1
            if not inside and "-v" in sys.argv:
                print(f"{chunk.path}:{chunk.start_line}: {above!r} {line!r}", file=sys.stderr)
    return found


def main(trees: list[Path]) -> None:
    """Print one row per language, the largest first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for top, path in ((tree.top, path) for tree in map(find_tree, trees) for path in tree.paths):
        if isinstance(source := read(top, path), Verdict) or "site-packages" in path:
            continue
        if language := refine(language_of(path), path, source.data):
            began = time.perf_counter()
            chunks, _ = cut_file(source, language, "r", LIMIT)
            took = round(1000 * (time.perf_counter() - began))
            lost = b"".join(chunk.text.encode() for chunk in chunks) != source.data
            symbols = sum(bool(chunk.signature) for chunk in chunks)
            found = counts[language]
            found.update(files=1, bytes=len(source.data), chunks=len(chunks), symbols=symbols)
            found.update(took=took, slow=int(took > 1000), lost=int(lost))
            found.update({} if language in DOCUMENTS else torn(chunks, source.data, language))
    columns = ["files", "bytes", "chunks", "symbols", "lost", "torn", "inside", "slow", "took"]
    print("language", *columns, sep="\t")
    for language, found in sorted(counts.items(), key=lambda item: -item[1]["bytes"]):
        print(language, *(found[column] for column in columns), sep="\t")


if __name__ == "__main__":
    main([Path(arg) for arg in sys.argv[1:] if arg != "-v"] or [Path(re.__file__).parents[1]])
