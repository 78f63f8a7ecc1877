"""GGUF, the file that llama.cpp and Ollama run, written from a Hugging Face-style model."""

from forge_cli.export.gguf.arch import ARCHITECTURES
from forge_cli.export.gguf.kquant import QUANTS
from forge_cli.export.gguf.writer import Weight, write_gguf

__all__ = ["ARCHITECTURES", "QUANTS", "Weight", "write_gguf"]
