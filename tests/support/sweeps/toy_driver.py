"""A driver of toy trials on Ray Tune, to be started and killed as a process of its own.

Arguments: folder of recipe, study and trials; trials at once.
"""

import functools
import os
import sys
from pathlib import Path

import toy_trials

from spikeseg.platform.cluster.session import connected
from spikeseg.platform.search.study.study import Keeper
from spikeseg.platform.search.study.trial_records import TrialReport, Verdict
from spikeseg.platform.search.sweep_file.plan import load_sweep
from spikeseg.platform.search.trials.engine import TrialQueue


def main(folder: Path, at_once: int) -> None:
    """Run or continue the sweep in a folder."""
    plan = load_sweep(str(folder / "toy.yaml"))
    keeper = Keeper(plan, folder, storage=f"sqlite:///{folder / 'study.db'}", trials=plan.trials)

    def on_report(number: int, report: TrialReport, verdict: Verdict) -> None:
        line = f"{number} {verdict.step} {verdict.state} {os.getpid()}\n"
        with (folder / "told.log").open("a") as log:
            log.write(line)

    orders = TrialQueue(
        keeper, functools.partial(toy_trials.prepare, plan), on_report, toy_trials.toy
    )
    with connected(cpus=1):
        from spikeseg.platform.search.trials.ray_tune import run_on_tune

        run_on_tune(
            orders,
            folder=folder,
            resources=plan.recipe.resources,
            workers=1,
            at_once=at_once,
            max_failures=plan.recipe.max_failures,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
