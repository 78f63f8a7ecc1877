"""A tiny model that llama.cpp runs, and an Ollama that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forge_cli.core.events import SILENT
from forge_cli.deploy.ollama import Server
from forge_cli.deploy.upload import digest_of
from forge_cli.export.gguf import write_gguf
from ollama_server import OllamaServer
from tiny_gguf import as_weights, random_weights, save_tokenizer, tiny_config
from tiny_train import TEMPLATE


def tiny_gguf(folder: Path, seed: int = 0) -> Path:
    """A random model of one layer."""
    config = tiny_config("llama", save_tokenizer(folder, "smollm"), num_hidden_layers=1)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return write_gguf(
        folder / f"tiny-{seed}.gguf", config=config, tokenizer_dir=folder,
        weights=as_weights(random_weights(config, seed)), quant="q8_0", name="tiny", metadata={},
    )  # fmt: skip


@contextmanager
def ollama_with(gguf: Path, *names: str) -> Iterator[OllamaServer]:
    """An Ollama that has the model under `names`."""
    with OllamaServer() as server, Server(server.url) as client:
        digest = digest_of(gguf, SILENT)
        with SILENT.task("upload") as task:
            client.upload(gguf, digest, task)
        for name in names:
            list(client.create({"model": name, "files": {"tiny.gguf": digest}, "parameters": {}}))
        yield server
