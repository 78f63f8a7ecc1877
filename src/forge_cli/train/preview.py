"""What a training would take, without loading the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from forge_cli.core.events import SILENT, Reporter
from forge_cli.core.records import Example, Preference
from forge_cli.models.backend import device_memory
from forge_cli.models.head_loss import Penalties
from forge_cli.models.load import load_tokenizer
from forge_cli.models.resolve import resolve
from forge_cli.train.data import make_data
from forge_cli.train.fitting import Fit, check_memory
from forge_cli.train.memory_plan import Training


def training_of(settings: Mapping[str, Any]) -> Training:
    """The settings that memory depends on."""
    return Training(**{field.name: settings[field.name] for field in fields(Training)})


def memory_limit_bytes(settings: Mapping[str, Any]) -> int:
    """Bytes that training may use: the setting in gigabytes, else what the device has."""
    limit = settings["memory_limit"]
    return int(limit * 1e9) if limit else device_memory()


def preview(
    examples: Sequence[Example | Preference],
    settings: Mapping[str, Any],
    *,
    cache: Path | None,
    reporter: Reporter = SILENT,
) -> Fit | None:
    """How the rows fit the memory; None where the model's kind is not foreseen.

    Args:
        settings: those of `train.run`, by name.

    Raises:
        UsageError: they do not fit. ForgeError: a row that is too long, no rows of a split.
    """
    names = ("span_weights", "valid_share", "seed", "beta", "packing")
    data = make_data(
        examples, settings["loss"], settings["valid_rows"], penalties=Penalties(),
        **{name: settings[name] for name in names},
    )  # fmt: skip
    tokenizer = load_tokenizer(resolve(settings["model"], reporter=reporter))
    data.tokenise(tokenizer, settings["max_tokens"])
    limit = memory_limit_bytes(settings)
    how = training_of(settings)
    return check_memory(settings["model"], how, data.loads, limit, cache, reporter)[0]
