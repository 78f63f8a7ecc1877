"""Mining beside LlamaIndex's CodeSplitter, astchunk and universal-ctags, over one tree.

python benchmarks/mining.py [TREE]      (none: the standard library of Python)

For each: MB/s of one process (median of three runs, all in turn), the share of the text that is
in no chunk, and the share of leading comments that are cut from their definition. ctags makes no
chunks: it is here for its speed. Forge is also run as a user would run it, on all cores.
"""

from __future__ import annotations

import ast
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from forge_cli import mine
from forge_cli.mine.chunks import cut_file
from forge_cli.mine.files import Source

LIMIT, RUNS = 1500, 3
Chunker = Callable[[str], list[str]]


def python_files(tree: Path) -> dict[str, str]:
    """Path → text of each file that Python itself can parse, without installed packages."""
    found = {}
    for path in sorted(tree.rglob("*.py")):
        if "site-packages" in path.parts or path.stat().st_size > 1_000_000:
            continue
        try:
            text = path.read_bytes().decode("utf-8")
            ast.parse(text)
        except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError):
            continue
        found[path.relative_to(tree).as_posix()] = text
    return found


def forge(text: str) -> list[str]:
    """One file cut by Forge, in this process."""
    chunks, _ = cut_file(Source("a.py", text.encode()), "python", "r", LIMIT)
    return [chunk.text for chunk in chunks]


def peers() -> Iterator[tuple[str, Chunker]]:
    """Those that are installed."""
    try:
        from llama_index.core.node_parser import CodeSplitter
        from tree_sitter_language_pack import get_parser

        splitter = CodeSplitter("python", max_chars=LIMIT, parser=get_parser("python"))
        yield "LlamaIndex CodeSplitter", guarded(splitter.split_text)
    except ImportError:
        print("llama-index-core is not installed", file=sys.stderr)
    try:
        from astchunk import ASTChunkBuilder

        builder = ASTChunkBuilder(max_chunk_size=LIMIT, language="python", metadata_template="none")
        yield "astchunk", guarded(lambda text: [c["content"] for c in builder.chunkify(text)])
    except ImportError:
        print("astchunk is not installed", file=sys.stderr)


def guarded(chunker: Chunker) -> Chunker:
    """The chunker, with no chunks for a file that it raises on."""

    def cut(text: str) -> list[str]:
        try:
            return chunker(text)
        except Exception:
            return []

    return cut


def placed(text: str, chunks: list[str]) -> list[tuple[int, int]]:
    """Where each chunk stands in the text, both counted in characters that are no white space."""
    bare = "".join(text.split())
    at, places = 0, []
    for chunk in chunks:
        piece = "".join(chunk.split())
        start = bare.find(piece, max(0, at - len(piece)))
        if piece and start != -1:
            places.append((start, start + len(piece)))
            at = start + len(piece)
    return places


def lost(text: str, places: list[tuple[int, int]]) -> tuple[int, int]:
    """(characters that are in no chunk, all), white space not counted."""
    covered, end = 0, 0
    for start, stop in sorted(places):
        covered += max(0, stop - max(start, end))
        end = max(end, stop)
    size = len("".join(text.split()))
    return size - covered, size


def torn(text: str, places: list[tuple[int, int]]) -> tuple[int, int]:
    """(definitions whose comment right above is in another chunk, definitions with one)."""
    lines = text.splitlines(keepends=True)
    before = [0]
    for line in lines:
        before.append(before[-1] + len("".join(line.split())))
    cut = total = 0
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        above, own = lines[max(0, first - 1)], lines[first]
        # One that stands deeper or less deep belongs to something else.
        level = len(above) - len(above.lstrip()) == len(own) - len(own.lstrip())
        if first == 0 or not above.lstrip().startswith("#") or not level:
            continue
        total += 1
        comment, start = before[first - 1], before[first]
        cut += not any(a <= comment and start < b for a, b in places)
    return cut, total


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print one line for each tool."""
    tree = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_paths()["stdlib"])
    texts = python_files(tree)
    size = sum(len(text.encode()) for text in texts.values()) / 1e6
    print(f"{tree.name}: {len(texts)} Python files, {size:.1f} MB; at most {LIMIT} characters\n")
    chunkers = [("Forge (cut, one process)", forge), *peers()]
    times: dict[str, list[float]] = {name: [] for name, _ in chunkers}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        for path, text in texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(text.encode())
        for _ in range(RUNS):
            for name, chunker in chunkers:
                took = seconds(lambda c=chunker: [c(t) for t in texts.values()])  # type: ignore[misc]
                times[name].append(took)
            for name, work in whole(root, Path(folder)).items():
                times.setdefault(name, []).append(seconds(work))
    quality = {name: judge(texts, chunker) for name, chunker in chunkers}
    base = statistics.median(times["Forge (cut, one process)"])
    print(f"{'':34}{'MB/s':>7}{'time / Forge cut':>18}{'lost':>19}{'comments torn':>15}")
    for name, runs in times.items():
        took = statistics.median(runs)
        told = quality.get(name, ("", ""))
        print(f"{name:34}{size / took:7.1f}{took / base:18.2f}{told[0]:>19}{told[1]:>15}")


def whole(root: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """Tools over the whole tree: Forge with its processes, its cache, and ctags."""
    cache = folder / "cache"

    def run(**options: object) -> None:
        for _ in mine.run(root, **options).lines():  # type: ignore[arg-type]
            pass

    def changed_nothing() -> None:
        run(cache=cache)

    run(cache=cache)
    found: dict[str, Callable[[], object]] = {
        "forge mine, all cores, no links": lambda: run(links=False),
        "forge mine, all cores": run,
        "forge mine, nothing changed": changed_nothing,
    }
    if shutil.which("ctags"):
        command = ["ctags", "-R", "--languages=Python", "-f", "/dev/null", str(root)]
        found["universal-ctags (tags alone)"] = lambda: subprocess.run(command, check=True)
    return found


def judge(texts: dict[str, str], chunker: Chunker) -> tuple[str, str]:
    """(share lost, share of comments torn), in words."""
    gone = size = cut = total = 0
    failed = 0
    for text in texts.values():
        places = placed(text, chunker(text))
        failed += bool(text.strip()) and not places
        a, b = lost(text, places)
        c, d = torn(text, places)
        gone, size, cut, total = gone + a, size + b, cut + c, total + d
    note = f" ({failed} failed)" if failed else ""
    return f"{gone / size:.2%}{note}", f"{cut / max(1, total):.1%} of {total}"


if __name__ == "__main__":
    main()
