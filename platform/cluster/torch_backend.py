"""Ray Train's torch backend with the store and network interfaces of `worker_network.py`."""

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

from .worker_network import Seat, join_workers, open_store, remove_store

_GOODBYE_SECONDS = 5.0


@dataclass
class PrivateTorchConfig(TorchConfig):
    """torch.distributed for Ray Train; nothing of it listens on an interface that it need not.

    Attributes:
        backend: `gloo` or `nccl`.
    """

    @property
    def backend_cls(self) -> type["PrivateTorchBackend"]:
        """What starts it on the workers."""
        return PrivateTorchBackend


class PrivateTorchBackend(_TorchBackend):
    """Starts the process group; Ray's own way opens torch's store on every interface."""

    def __init__(self) -> None:
        self._store = ""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Open the store on worker 0 and have all workers join.

        Raises:
            OSError: Where worker 0 cannot listen on its node's address.
        """
        assert backend_config.backend is not None
        nodes = worker_group.execute(_describe_node)
        shared = len({node for node, _ in nodes}) == 1
        hosts = [None if shared else host for _, host in nodes]
        timeout_s = backend_config.timeout_s
        self._store = worker_group.execute_single(0, open_store, hosts[0], timeout_s=timeout_s)
        worker_group.execute(_set_variables)
        seats = [
            Seat(backend_config.backend, rank, len(hosts), host, timeout_s)
            for rank, host in enumerate(hosts)
        ]
        try:
            ray.get(
                [
                    worker_group.execute_single_async(seat.rank, join_workers, self._store, seat)
                    for seat in seats
                ]
            )
        except Exception:
            self._remove(worker_group)
            raise
        if backend_config.backend == "gloo":
            self._remove(worker_group)

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """End the process group; NCCL may ask the store until then."""
        super().on_shutdown(worker_group, backend_config)
        self._remove(worker_group)

    def _remove(self, worker_group: Any) -> None:
        """Remove the store's file, if worker 0 still lives."""
        removed = worker_group.execute_single_async(0, remove_store, self._store)
        ray.wait([removed], timeout=_GOODBYE_SECONDS)


def _describe_node() -> tuple[str, str]:
    """Id and address of this worker's node."""
    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


def _set_variables() -> None:
    """What Ray's own backend sets in a worker."""
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    _set_torch_distributed_env_vars()
