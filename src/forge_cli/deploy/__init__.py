"""Deploy a finished GGUF: write its Modelfile, hand it to Ollama, ask it something."""

from forge_cli.deploy.deployment import DeployResult, SmokeAnswer, run

__all__ = ["DeployResult", "SmokeAnswer", "run"]
