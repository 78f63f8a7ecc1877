"""Forge: fine-tune a local model on a private repository."""

__version__ = "0.1.0"
