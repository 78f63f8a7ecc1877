"""Where Forge keeps what belongs to no repository."""

from __future__ import annotations

import os
from pathlib import Path


def user_file() -> Path:
    """The user's own settings (XDG base directory)."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "forge" / "forge.yaml"


def cache_dir() -> Path:
    """Where Forge keeps what can be made again: FORGE_CACHE, else the XDG cache."""
    if own := os.environ.get("FORGE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forge"


def data_dir() -> Path:
    """Where Forge keeps what cannot be made again: FORGE_DATA, else the XDG data directory."""
    if own := os.environ.get("FORGE_DATA"):
        return Path(own)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "forge"
