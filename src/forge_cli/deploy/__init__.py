"""Deploy a finished GGUF: beside the old one, checked, asked, and only then in its place."""

from forge_cli.deploy.deployment import DeployResult, run
from forge_cli.deploy.rollback import roll_back, versions

__all__ = ["DeployResult", "roll_back", "run", "versions"]
