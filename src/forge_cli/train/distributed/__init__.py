"""Data-parallel training: ranks that run their share of each step's batches and add up.

world     the ranks and what they tell one another     link     who lives, who failed and why
deal      which rank runs which batches                sharing  what rank 0 has that all need
"""

from forge_cli.train.distributed.deal import deal
from forge_cli.train.distributed.link import Lost
from forge_cli.train.distributed.world import ALONE, World, join

__all__ = ["ALONE", "Lost", "World", "deal", "join"]
