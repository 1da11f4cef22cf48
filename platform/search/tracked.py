"""A sweep's own run in MLflow, and the thread that sends it and its trials' journals there."""

import json
import logging
import threading
from pathlib import Path

from ..journal import Journal, append_end
from ..provenance import versions
from .recipe import SweepPlan
from .study import Keeper
from .verdict import TrialRecord

_log = logging.getLogger(__name__)
_POLL_SECONDS = 2.0


class SweepRecord:
    """The parent run of a sweep.

    Args:
        plan: The sweep.
        folder: Its folder.
        storage: Folder of all runs.
        trials: Trials of the whole sweep.
    """

    def __init__(self, plan: SweepPlan, folder: Path, storage: Path, *, trials: int) -> None:
        recipe = plan.recipe
        objectives = [f"{o.metric} ({o.direction})" for o in recipe.objectives]
        self.journal = Journal(
            folder / "journal",
            run_name=folder.name,
            tags={
                "sweep": folder.name,
                "recipe": recipe.name,
                "base": recipe.base,
                **{f"version.{name}": value for name, value in versions().items()},
                "mlflow.note.content": (
                    f"Sweep `{recipe.name}` over `{recipe.base}`; its trials are the runs below.\n"
                ),
            },
            params={
                "sweep.trials": str(trials),
                "sweep.sampler": recipe.sampler.name,
                "sweep.seed": str(recipe.sampler.seed),
                "sweep.pruner": recipe.pruner.rule,
                "sweep.objectives": ", ".join(objectives),
                **{
                    f"space.{key}": json.dumps(dimension.model_dump(mode="json"))
                    for key, dimension in recipe.space.dimensions.items()
                },
            },
        )
        self._folder = folder
        self._storage = storage
        self._experiment = plan.base.config.tracking.experiment
        self._sizes: dict[Path, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True, name="sweep-sender")
        self._thread.start()

    def trial_ended(self, item: TrialRecord) -> None:
        """Record a trial's state and reason in its own journal."""
        journal = self._folder / "trials" / str(item.number) / "journal"
        if not journal.is_dir():
            return
        status = "FINISHED" if item.state == "COMPLETE" else "KILLED"
        if item.state == "FAIL":
            status = "FAILED"
        tags = {"state": item.state, "reason": item.reason, "attempts": str(item.attempts)}
        append_end(journal, tags, status)

    def finish(self, keeper: Keeper) -> None:
        """Record how many trials ended in which state."""
        states = [item.state for item in keeper.records.values()]
        self.journal.metrics(
            len(states),
            {f"trials/{state.lower()}": states.count(state) for state in sorted(set(states))},
        )

    def close(self) -> None:
        """Send what is left; what MLflow does not take now stays in the journals."""
        self.journal.finish("FINISHED")
        self._stop.set()
        self._thread.join(60)
        self.journal.close()

    def _send(self) -> None:
        try:
            from ..tracking import sync, tracking_uri
        except ImportError as error:
            _log.warning("not sent to MLflow, which cannot be imported here: %s", error)
            return
        uri = tracking_uri(self._storage)
        told = False
        while True:
            last = self._stop.is_set()
            try:
                trials = sorted((self._folder / "trials").glob("*/journal"))
                for journal in (self.journal.folder, *trials):
                    size = (journal / "records.jsonl").stat().st_size
                    if self._sizes.get(journal) != size:
                        sync(journal, uri, self._experiment)
                        self._sizes[journal] = size
                told = False
            except Exception as error:  # A tracker must never end a sweep.
                if not told:
                    _log.warning("%s: MLflow is out of reach, will retry: %s", uri, error)
                    told = True
            if last:
                return
            self._stop.wait(_POLL_SECONDS)
