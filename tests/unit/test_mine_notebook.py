"""Mining notebooks: cells are ranges of the file's bytes, and what they put out is apart."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest

from forge_cli import mine
from forge_cli.core.records import Chunk
from forge_cli.mine.chunks import cut_file
from forge_cli.mine.files import Source
from language_sample import damaged, keeps_the_contract

IMAGE = base64.b64encode(random.Random(0).randbytes(9000)).decode()
CELLS: list[dict[str, Any]] = [
    {"cell_type": "markdown", "metadata": {}, "source": ["# Title é\n", "\n", "Some words."]},
    {
        "cell_type": "code",
        "execution_count": 1,
        "metadata": {},
        "outputs": [],
        "source": ["%matplotlib inline\n", "import numpy as np\n", "import os"],
    },
    {
        "cell_type": "code",
        "execution_count": 2,
        "metadata": {},
        "outputs": [{"data": {"image/png": IMAGE}, "output_type": "display_data"}],
        "source": "x = np.load('a \\'b\\'')\nplot(x)  # {\"cells\": [1]}\n",
    },
    {"cell_type": "raw", "metadata": {}, "source": []},
    {
        "source": ["show(x)"],
        "outputs": [{"output_type": "stream", "text": ["out\n"]}],
        "metadata": {},
        "cell_type": "code",
    },
    {"attachments": {"a.png": {"image/png": IMAGE}}, "cell_type": "markdown", "source": ["![]"]},
]
NOTEBOOK = {
    "metadata": {"cells": [], "language_info": {"name": "python"}},
    "cells": CELLS,
    "nbformat": 4,
}


def mined(folder: Path, text: str, limit: int = 1500) -> list[Chunk]:
    (folder / "a.ipynb").write_bytes(text.encode())
    chunks = list(mine.run(folder, max_chars=limit, jobs=1))
    keeps_the_contract(chunks, text.encode())
    assert {chunk.language for chunk in chunks} == {"notebook"}
    return chunks


@pytest.mark.parametrize("indent", [1, None])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_cells_are_chunks(tmp_path: Path, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(NOTEBOOK, indent=indent, ensure_ascii=ascii_only) + "\n"
    chunks = [c for c in mined(tmp_path, text) if c.part == 1]
    kinds = ["text", "cell", "cell", "output", "cell", "cell", "cell", "output", "output", "cell"]
    assert [chunk.kind for chunk in chunks] == [*kinds, "text"]
    cells = [chunk for chunk in chunks if chunk.kind == "cell"]
    assert [chunk.calls for chunk in cells] == [[], [], ["load", "plot"], [], ["show"], []]
    assert [chunk.header for chunk in cells] == ["", "", "import numpy as np", "", "", ""]
    assert cells[2].text.lstrip().startswith('"source": "x = np.load(')
    assert all(c.symbol is None and c.signature is None for c in chunks)


def test_an_image_is_in_no_cell_and_no_text(tmp_path: Path) -> None:
    for chunk in mined(tmp_path, json.dumps(NOTEBOOK, indent=1)):
        assert chunk.kind == "output" or not any(
            IMAGE[at : at + 30] in chunk.text for at in range(0, len(IMAGE), 300)
        )


def test_a_cell_that_is_too_large_is_cut_at_its_lines(tmp_path: Path) -> None:
    source = [f"call_{n}(x)\n" for n in range(60)]
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "source": source}
    parts = [c for c in mined(tmp_path, json.dumps({"cells": [cell]}, indent=1), 400)]
    parts = [chunk for chunk in parts if chunk.kind == "cell"]
    assert len(parts) > 2 and {part.parts for part in parts} == {len(parts)}
    assert [name for part in parts for name in part.calls] == [f"call_{n}" for n in range(60)]
    assert all(part.text.endswith("\n") for part in parts)


@pytest.mark.parametrize(
    "text",
    [
        '{"cells": [',
        "[]",
        '{"cells": 3}',
        '{"cells": [1]}',
        '{"cells": []}',
        '\ufeff{"cells": [{}]}',
        "[" * 5000,
        '{"cells": {}, "cells": [{}, 2]}',
        "null",
    ],
)
def test_what_is_no_notebook_is_text(tmp_path: Path, text: str) -> None:
    assert {chunk.kind for chunk in mined(tmp_path, text)} == {"text"}


def test_another_kernel_and_strange_values(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": "f <- g(1)\n", "outputs": None}]
    cells += [{"cell_type": [], "source": {"a": 1}, "outputs": 3}, {}, {"source": ["\ud800", 2]}]
    for about in ({"language_info": {"name": "R"}}, {"language_info": []}, [], None):
        text = json.dumps({"cells": cells, "metadata": about})
        assert [c.kind for c in mined(tmp_path, text)].count("cell") == 4


def test_damage() -> None:
    rng = random.Random("damage notebook")
    small = {**NOTEBOOK, "cells": [*CELLS[:2], CELLS[3], CELLS[4]]}
    for number in range(200):
        text = json.dumps(small, indent=rng.choice([None, 1]))
        data = damaged(rng, text) if number % 2 else text.replace("e", "\\u0065").encode()
        chunks, _ = cut_file(Source("a.ipynb", data), "notebook", "r", rng.choice([40, 300]))
        keeps_the_contract(chunks, data)
