"""Ray is opened the way that its processes and its clients agree on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_WORK = (
    "from spikeseg.platform.cluster import connected\n"
    "with connected(cpus=1):\n"
    "    import ray\n"
    "    print(ray.get(ray.remote(lambda: 'answered').remote()))\n"
)


@pytest.mark.ray
@pytest.mark.parametrize("before", ["", "import ray\n"], ids=["package first", "ray first"])
def test_a_local_cluster_answers_whoever_imported_ray_first(tmp_path: Path, before: str) -> None:
    free = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", before + _WORK],
        # Nobody has a token there yet, as on a machine where Ray never ran.
        env={**free, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout.strip() == "answered", done.stderr
