"""What an agent can do with Forge: read from skills.yaml, written out for agents."""

from __future__ import annotations

from forge_cli.guard.skills.skill import Folder, Skill, Skills, load_skills

__all__ = ["Folder", "Skill", "Skills", "load_skills"]
