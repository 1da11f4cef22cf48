"""Stock OptunaSearch and ASHA over the same toy curves: run as a process of its own.

Arguments: folder; `nan`, `asha` or `kill`. The study lies in `study.db`.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import optuna

from spikeseg.platform.cluster.session import connected

STEPS = 8


def train(config: dict[str, Any]) -> None:
    """Report a curve that is as good as its level; level 0 is not a number from step 2 on."""
    from ray import tune

    for step in range(1, STEPS + 1):
        time.sleep(0.05)
        value = float(config["level"]) * step
        if config["level"] == 0:
            # Good enough for the first rung.
            value = 99.0 if step == 1 else float("nan")
        if config["kill"] and config["level"] == 1 and step == 3:
            os.kill(config["kill"], signal.SIGKILL)
        tune.report({"value": value})


def space(trial: optuna.Trial) -> None:
    """One level; by name, since the search is pickled with its space."""
    trial.suggest_int("level", 0, 5)


def main(folder: Path, what: str) -> None:
    """Run one small sweep, one trial at a time, the levels in a fixed order."""
    with connected(cpus=1):
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        levels = {"nan": [5, 0, 1], "asha": [5, 4, 3, 2, 1], "kill": [1, 5, 2]}[what]
        search = OptunaSearch(
            space=space,
            metric="value",
            mode="max",
            points_to_evaluate=[{"level": level} for level in levels],
            study_name="stock",
            storage=optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.db'}"),
        )
        scheduler = ASHAScheduler(
            metric="value", mode="max", max_t=STEPS, grace_period=1, reduction_factor=2
        )
        tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space={"kill": os.getpid() if what == "kill" else 0},
            tune_config=tune.TuneConfig(
                search_alg=search,
                scheduler=scheduler,
                num_samples=len(levels),
                max_concurrent_trials=1,
            ),
            run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
        ).fit()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
