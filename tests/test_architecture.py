"""The shape of the code: who may import whom, and what must stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "forge_cli"
FILES = sorted(SRC.rglob("*.py"))

STAGES = {"mine", "raft", "validate", "train", "evaluate", "export", "deploy", "ask"}
# Room → the rooms it may import, besides itself.
ALLOWED = {
    "core": set(),
    "models": {"core"},
    "teachers": {"core", "models"},
    **{stage: {"core", "models"} for stage in STAGES},
    "raft": {"core", "models", "teachers"},
    "evaluate": {"core", "models", "teachers"},
    "ask": {"core", "models", "teachers"},
    "recipes": {"core"},
    "runs": {"core"},
    "doctor": {"core", "models"},
    "pipeline": {"core", "models", "teachers"} | STAGES,
    "serve": {"core", "models", "teachers", "pipeline"} | STAGES,
    "guard": {"core", "models", "teachers", "pipeline", "serve", "runs", ""} | STAGES,
    "cli": {"core", "models", "teachers", "pipeline", "serve", "guard", "recipes", "runs", "doctor"}
    | STAGES
    | {""},
    "__main__": {"cli"},
    "": set(),
}


def room(file: Path) -> str:
    first = file.relative_to(SRC).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            if node.module == "forge_cli":
                found += [f"forge_cli.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_imports_point_left(file: Path) -> None:
    own = room(file)
    for module in imports(file):
        parts = module.split(".")
        if parts[0] != "forge_cli" or len(parts) == 1 or parts[1] == "__version__":
            continue
        assert parts[1] == own or parts[1] in ALLOWED[own], f"{own} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_mlx_core_comes_through_the_backend(file: Path) -> None:
    if file.name != "backend.py":
        assert not {"mlx.core", "mlx.nn"} & set(imports(file))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_linalg_names_its_stream(file: Path) -> None:
    """On a Mac's GPU svd and qr raise without stream=mx.cpu; here that would go unseen."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and "linalg" in ast.unparse(node.func):
            assert "stream=mx.cpu" in ast.unparse(node)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SRC)))
def test_rooms_are_small(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 60, f"{file.name}:{node.lineno} {node.name} has {lines} lines"


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["mlx", "transformers", "datasets", "tree_sitter", "gguf", "numpy", "huggingface_hub"]
    heavy += ["ollama", "pydantic", "httpx"]
    code = f"import sys, forge_cli.cli.main; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
