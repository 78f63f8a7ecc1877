"""The guardian: watches repositories, measures drift, retrains, and deploys only what is better.

watch → drift → rules → update (pipeline) → gates → export → deploy → smoke; see `cycle`.
Beside it what agents can do with all of Forge: `skills.yaml`, `skills`, `mcp`.
"""
