"""Which settings may change when a run is resumed: those that decide no result."""

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase

from ..checkpoint.run_folder import RunFolder
from ..config.recipes import ConfigError, Resolved, flat, load_resolved, override, parse_overrides
from ..config.schema import ExperimentConfig

# The number of workers, threads and the device decide the last bits: a resume warns of these.
_MAY_CHANGE = (
    "name",
    "data.path",
    "data.prefetch",
    "data.on_bad_row",
    "trainer.workers",
    "trainer.min_workers",
    "trainer.max_failures",
    "trainer.checkpoint_every",
    "trainer.log_every",
    "trainer.keep_*",
    "trainer.mirror",
    "trainer.device",
    "trainer.threads",
    "trainer.onednn",
    "trainer.memory_format",
    "trainer.cuda_graph",
    "trainer.nonfinite_budget",
    "trainer.step_timeout_s",
    "trainer.ledger",
    "trainer.test",
    "tracking.*",
)


def resume_config(run: RunFolder, overrides: Sequence[str]) -> Resolved:
    """Read a run's configuration and apply the overrides that a resumed run may have.

    Args:
        run: The run's folder.
        overrides: Items `field=value`.

    Raises:
        ConfigError: Where the run's configuration cannot be read, or a setting must stay as
            it was.
    """
    path, origins_file = run.path / "config.yaml", run.path / "origins.json"
    try:
        config = load_resolved(path.read_text()).config
        # Only errors and provenance name origins: a run without them can go on.
        origins = json.loads(origins_file.read_text()) if origins_file.is_file() else {}
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    resolved = Resolved(config, origins)
    values = parse_overrides(overrides)
    fixed = [key for key in values if not _may_change(key)]
    if fixed:
        raise ConfigError(f"command line: {fixed[0]}: {_rule(run.path.name)}")
    return override(resolved, values, "command line") if values else resolved


def require_same(before: str, now: ExperimentConfig) -> None:
    """Refuse to go on from a checkpoint under settings that would give other results.

    Args:
        before: The configuration that the checkpoint was written under, as YAML.
        now: The configuration as it is.

    Raises:
        ConfigError: Names the first setting that differs, with both values.
    """
    trained, wanted = flat(load_resolved(before).config), flat(now)
    # A section that may be left out has its keys in one of them only.
    for key in dict.fromkeys([*wanted, *trained]):
        value, earlier = wanted.get(key), trained.get(key)
        if earlier != value and not _may_change(key):
            raise ConfigError(
                f"{key}: {value!r}, but the run's checkpoint was trained with {earlier!r}; "
                f"{_rule(now.name)}"
            )


def _may_change(key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in _MAY_CHANGE)


def _rule(name: str) -> str:
    return (
        "it decides results, so a run cannot be continued with another value; start a new one "
        f"(init.segmentor takes the folder of {name}), or change: {', '.join(_MAY_CHANGE[1:])}"
    )
