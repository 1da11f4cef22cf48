"""Read a sweep back from its folder, whether or not a driver is at work on it."""

import json
from pathlib import Path
from typing import NamedTuple

from ..config.errors import validate_tree
from ..config.recipes import ConfigError, load_resolved
from ..config.stored_json import read_stored
from .study.stored_trials import read_records
from .study.study_storage import read_address
from .study.trial_records import TrialRecord
from .sweep_file.plan import SweepPlan, SweepRequest
from .sweep_file.schema import SweepRecipe
from .sweep_folder import PLAN, StoredPlan, address_inside


class StoredSweep(NamedTuple):
    """A sweep as its folder and its study have it.

    Attributes:
        plan: The sweep; without rungs and fixed points, which only a driver needs.
        records: Trials by number.
        trials: Trials of the whole sweep.
        folder: Its folder.
    """

    plan: SweepPlan
    records: dict[int, TrialRecord]
    trials: int
    folder: Path


def read_sweep(folder: Path) -> StoredSweep:
    """Read a sweep.

    Args:
        folder: The sweep's folder.

    Raises:
        ConfigError: Where there is no sweep, or its study cannot be read.
    """
    path = folder / PLAN
    if not path.is_file():
        raise ConfigError(f"{folder}: there is no sweep")
    stored = read_stored(path, StoredPlan)
    content = json.loads(path.read_text())["recipe"]
    recipe = validate_tree(SweepRecipe, content, {}, source=str(path))
    base = load_resolved(stored.base)
    request = stored.request
    plan = SweepPlan(
        recipe,
        base,
        (),
        (),
        None if request is None else SweepRequest(request.recipe, tuple(request.overrides)),
    )
    # A password in it is not stored: the address is given again as when the sweep began.
    address = (read_address() or stored.study) if stored.study else address_inside(folder)
    where, seed = f"{folder}: its study", base.config.seed
    records = read_records(address, folder.name, recipe, where, first_seed=seed)
    return StoredSweep(plan, records, stored.trials, folder)
