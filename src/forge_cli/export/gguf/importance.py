"""An importance matrix: which columns of each matrix the model's own text makes most use of.

The coder minimises the error weighted by it, so that what is multiplied by large inputs is kept
best. Source: llama.cpp `tools/imatrix`, `src/llama-quant.cpp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Importance:
    """What the coder weighs errors by.

    Args:
        means: by checkpoint name, mean squares of the inputs, float32 [in] or [experts, in]; a
            matrix that is not there is coded without.
        rows: how many texts they are of.
        source: what texts, in words.
    """

    means: Mapping[str, np.ndarray]
    rows: int
    source: str


def add_importance(writer: Any, importance: Importance) -> None:
    """Write where it comes from as `llama-quantize` does (`writer`: gguf.GGUFWriter)."""
    writer.add_string("quantize.imatrix.dataset", importance.source)
    writer.add_uint32("quantize.imatrix.entries_count", len(importance.means))
    writer.add_uint32("quantize.imatrix.chunks_count", importance.rows)
