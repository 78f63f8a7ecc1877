"""GGUF, the file that llama.cpp and Ollama run, written from a Hugging Face-style model."""

from forge_cli.export.gguf.architectures import ARCHITECTURES
from forge_cli.export.gguf.importance import Importance
from forge_cli.export.gguf.policy import QUANTS
from forge_cli.export.gguf.writer import Weight, write_gguf

__all__ = ["ARCHITECTURES", "QUANTS", "Importance", "Weight", "write_gguf"]
