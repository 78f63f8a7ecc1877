"""Jobs: what they are, where they are kept, and who works on them."""

from forge_cli.serve.jobs.job import Conflict, Event, Job, Spec
from forge_cli.serve.jobs.store import JobStore

__all__ = ["Conflict", "Event", "Job", "JobStore", "Spec"]
