"""How many trials fit on a cluster at once."""

from collections.abc import Mapping, Sequence

from ...config.yaml_source import ConfigError
from ..sweep_file.schema import Resources


def trials_at_once(
    resources: Resources,
    *,
    workers: int,
    wanted: int | None,
    nodes: Sequence[Mapping[str, float]],
) -> int:
    """Trials that run at the same time.

    Args:
        resources: What one worker takes.
        workers: Workers of one trial; all of them start together.
        wanted: Trials at once that were asked for; None for as many as fit.
        nodes: `CPU` and `GPU` of every node of the cluster.

    Raises:
        ConfigError: Where not even one trial, or not the wanted number, fits; names the sum.
    """
    slots = sum(_slots(resources, node) for node in nodes)
    fits = slots // workers
    if fits < (wanted or 1):
        number = wanted or 1
        total = [sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")]
        nodes_word = "1 node has" if len(nodes) == 1 else f"{len(nodes)} nodes have"
        raise ConfigError(
            f"concurrency: {number} trials at once x {workers} workers x ({resources.cpu:g} CPU + "
            f"{resources.gpu:g} GPU) = {number * workers * resources.cpu:g} CPU + "
            f"{number * workers * resources.gpu:g} GPU; the cluster's {nodes_word} "
            f"{total[0]:g} CPU + {total[1]:g} GPU, which is room for {slots} workers, {fits} "
            "trials: they would wait for ever"
        )
    return min(wanted or fits, fits)


def _slots(resources: Resources, node: Mapping[str, float]) -> int:
    """Workers that one node has room for."""
    needs = (("CPU", resources.cpu), ("GPU", resources.gpu))
    # A tenth of 1 is a bit less than 0.1 ten times.
    return min(int(node.get(kind, 0.0) / need + 1e-6) for kind, need in needs if need)
