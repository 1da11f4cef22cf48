"""A Ray cluster of several nodes on one machine, of which some can be lost."""

import contextlib
import logging
import random
from collections.abc import Iterator


class Nodes:
    """A head without CPUs and nodes with one each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.workers = [self.add(), self.add()]

    def add(self) -> object:
        return self.cluster.add_node(num_cpus=1)

    def lose(self, generator: random.Random) -> None:
        """Kill a node without grace."""
        lost = self.workers.pop(generator.randrange(len(self.workers)))
        self.cluster.remove_node(lost, allow_graceful=False)


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """A head and two nodes, to which this process is connected; their environment is its own."""
    import ray

    made = Nodes()
    try:
        ray.init(address=made.cluster.address, log_to_driver=False, logging_level=logging.WARNING)
        yield made
    finally:
        ray.shutdown()
        made.cluster.shutdown()
