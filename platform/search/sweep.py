"""Run a sweep: Optuna proposes through the keeper, Ray Tune runs, MLflow shows."""

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoint.run_folder import RunFolder
from ..cluster.cluster_loss import interrupt_when_lost
from ..cluster.live_metrics import is_in_session, set_gauge
from ..cluster.node_checks import check_nodes
from ..cluster.room import wait_for_room
from ..cluster.session import connected, worker_nodes
from ..config.recipes import ConfigError, dump, flat
from ..loading.data_checks import check_data
from ..train.failure import PreemptedError
from ..train.preparation import check_parts, load_initial_weights, open_data
from ..train.trainer import preflight
from .steering import read_added, stopped_by_order
from .study.study import Keeper
from .study.study_storage import check_storage_address, read_address
from .study.trial_records import VERDICT, Proposal, TrialReport, Verdict
from .sweep_file.measured_metrics import check_categories
from .sweep_file.plan import SweepPlan, load_sweep
from .sweep_folder import SweepFolder, with_stored_defaults
from .sweep_outcome import SweepOutcome, describe_outcome
from .sweep_results import finish_sweep
from .sweep_standing import Standing
from .sweep_status import SweepStatus, Watcher
from .sweep_tracking import SweepRecord
from .trials.capacity import trials_at_once
from .trials.engine import TrialQueue, run_here
from .trials.leaving import StoppedError, left_by_signals, stopped_by_signals
from .trials.trial import reports
from .trials.trial_training import TrialFunction

# Each is built as a training would build it.
_MOST_POINTS = 256


class SweepUnfinishedError(RuntimeError):
    """Trials are left that have no end; the sweep can be continued.

    Args:
        sentence: What happened.
        name: The sweep's name; `--resume NAME` takes it.
        code: Exit code: 1, or 128 and the signal that stopped the sweep.
    """

    def __init__(self, sentence: str, name: str, code: int = 1) -> None:
        super().__init__(sentence, name, code)
        self.name = name
        self.code = code

    def __str__(self) -> str:
        return self.args[0]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Where and how a sweep runs, apart from what it searches.

    Attributes:
        storage: Folder of all runs; every node must see it.
        trials: Trials of the whole sweep; None for the recipe's number, and in a resumed sweep for
            the number that it has; a larger one extends it.
        resume: Name of a sweep to continue; the recipe and overrides must be the same.
        name: Name of a new sweep; None for one made of recipe and time.
        concurrency: Trials at once; None for as many as fit.
        here: Run one trial after the other in this process, without Ray.
    """

    storage: Path
    trials: int | None = None
    resume: str | None = None
    name: str | None = None
    concurrency: int | None = None
    here: bool = False


def sweep(
    recipe: str,
    overrides: Sequence[str],
    options: SweepOptions,
    *,
    progress: Callable[[str], None],
    show: Callable[[SweepStatus], None] | None = None,
    work: TrialFunction = reports,
) -> SweepOutcome:
    """Run or continue a sweep.

    Args:
        recipe: Name of a shipped sweep, or path of a YAML file.
        overrides: Items `field=value` for the base experiment, `sweep.field=value` for the recipe.
        options: Where and how it runs.
        progress: Takes a line for a person.
        show: Takes the state of the sweep when a trial begins and after every report.
        work: Turns a work order into reports; a training unless a test says otherwise.

    Raises:
        ConfigError: Where the request is wrong, or the concurrency cannot fit the cluster; no trial
            was started.
        ValueError: Where a node of the cluster does not see the storage; no trial was started.
        SweepUnfinishedError: Where trials are left that had no end: SIGTERM or Ctrl-C came, or the
            engine failed.
    """
    if options.resume is not None:
        overrides = with_stored_defaults(options.resume, options.storage, overrides)
    plan = load_sweep(recipe, overrides)
    if options.here:
        _check_here(plan, options.concurrency)
    options = replace(options, storage=options.storage.absolute())
    preflight(plan.base, options.storage)
    check_trials(plan)
    study = read_address()
    if study is not None and options.resume is None:
        # Before Ray starts. Of a sweep to continue it is checked first whether it is its own.
        check_storage_address(study)
    with contextlib.ExitStack() as opened:
        engine = _engine(plan, options, progress)
        # What cannot run leaves no folder; of a sweep to continue, work may not even be left.
        run = None if options.resume is not None else opened.enter_context(engine)
        folder = opened.enter_context(
            SweepFolder.open(
                plan,
                options.storage,
                study=study,
                resume=options.resume,
                name=options.name,
                trials=options.trials,
            )
        )
        keeper = Keeper(plan, folder.path, storage=folder.study, trials=folder.trials)
        added = read_added(folder.path)
        keeper.add(added)
        opened.enter_context(stopped_by_order(folder.path))
        label = folder.path.name
        if keeper.configurations > folder.trials + len(added):
            progress(
                f"{label}: {keeper.configurations} trials were started already, more than the "
                f"{folder.trials} asked for; each of them is brought to an end"
            )
        elif keeper.configurations < folder.trials:
            progress(
                f"{label}: {folder.trials} trials were asked for, and after "
                f"{keeper.configurations} no point is left ({plan.recipe.sampler.name})"
            )
        record = SweepRecord(plan, folder.path, options.storage, trials=keeper.trials)
        finished = False
        try:
            record.reconcile(keeper)
            if keeper.finished < keeper.trials:
                run = run or opened.enter_context(engine)
                orders = _orders(plan, keeper, record, progress, _observe(show), work)
                _run(run, orders, progress)
            with _can_be_stopped(keeper, progress):
                record.finish(keeper)
                finish_sweep(plan, keeper, folder.path, record)
            finished = keeper.finished >= keeper.trials
        finally:
            record.close(finished=finished)
    if not finished:
        raise _unfinished(keeper, "the engine ended", 1)
    return describe_outcome(plan, keeper, record)


def _run(
    engine: Callable[[TrialQueue], None], orders: TrialQueue, progress: Callable[[str], None]
) -> None:
    """Run the trials; those that run when this ends early stay RUNNING, to be continued."""
    keeper = orders.keeper
    try:
        with _can_be_stopped(keeper, progress, leave=orders.leave):
            try:
                engine(orders)
            except PreemptedError as error:
                # Of the trial that ran here; the signal is what ends the block.
                progress(f"{keeper.folder.name}: {error}")
    except SweepUnfinishedError:
        raise
    except Exception as error:
        # Tune wraps what happened in advice on how to continue with Tune.
        cause = error.__cause__ or error
        said = str(cause).partition("\n")[0]
        what = f"the engine failed ({type(cause).__name__}: {said})"
        raise _unfinished(orders.keeper, what, 1) from error


@contextlib.contextmanager
def _can_be_stopped(
    keeper: Keeper, progress: Callable[[str], None], *, leave: Path | None = None
) -> Iterator[None]:
    """Turn a signal that ends the block into `SweepUnfinishedError`.

    Args:
        keeper: The sweep's.
        progress: Takes a line for a person.
        leave: File that tells trials to end with a checkpoint; None where none runs.
    """
    try:
        with (
            stopped_by_signals()
            if leave is None
            else left_by_signals(leave, lambda: keeper.live_numbers)
        ):
            yield
    except StoppedError as stop:
        progress(f"{keeper.folder.name}: stopping ({stop.number.name})")
        raise _unfinished(keeper, f"stopped by {stop.number.name}", 128 + stop.number) from stop


def _unfinished(keeper: Keeper, what: str, code: int) -> SweepUnfinishedError:
    name = keeper.folder.name
    return SweepUnfinishedError(
        f"{name}: {what}, {keeper.finished} of {keeper.trials} trials have ended", name, code
    )


def _check_here(plan: SweepPlan, concurrency: int | None) -> None:
    if plan.recipe.workers_per_trial > 1:
        raise ConfigError("workers_per_trial: more than 1 needs Ray, which is not used here")
    if concurrency is not None and concurrency > 1:
        raise ConfigError(
            f"concurrency: got {concurrency}: without Ray, one trial runs after the other"
        )


def check_trials(plan: SweepPlan) -> None:
    """Check, as a training would, every choice, few numbers, both ends of ranges, fixed points.

    Of fixed points those that leave nothing to be drawn, 256 at most.

    Raises:
        ConfigError: Names key and value, and what a training would say.
    """
    check_categories(
        plan.recipe, lambda: open_data(plan.base.config).label_space.categories is not None
    )
    seen = set()
    corners = ((key, point) for key, _, point in plan.recipe.space.corner_points())
    listed = ((next(iter(point), "first"), point) for point in plan.points[:_MOST_POINTS])
    for key, point in itertools.chain(corners, listed):
        if not plan.recipe.space.is_whole(point):
            continue
        config = plan.experiment(point).config
        text = config.model_dump_json()
        if text in seen:
            continue
        seen.add(text)
        try:
            load_initial_weights(check_parts(config), config)
        except ValueError as error:
            about = str(error).partition(":")[0]
            if about in point:
                key = about
            elif about in flat(config):
                raise ConfigError(f"{error} (a trial with {key}: {point[key]!r})") from error
            raise ConfigError(f"space: {key}: got {point[key]!r}: {error}") from error


@contextlib.contextmanager
def _engine(
    plan: SweepPlan, options: SweepOptions, progress: Callable[[str], None]
) -> Iterator[Callable[[TrialQueue], None]]:
    """Open what runs the trials: this process, or a cluster on which they are known to fit."""
    if options.here:
        yield run_here
        return
    recipe = plan.recipe
    with connected(cpus=recipe.resources.cpu * recipe.workers_per_trial):
        nodes = worker_nodes()
        if nodes:
            # Trials write journals into it; of all processes only this one talks to the tracker.
            check_nodes(nodes, options.storage, None, progress)
        wanted = options.concurrency or recipe.concurrency
        worker = {"CPU": recipe.resources.cpu, "GPU": recipe.resources.gpu}
        at_once = wait_for_room(
            lambda living: trials_at_once(
                recipe.resources, workers=recipe.workers_per_trial, wanted=wanted, nodes=living
            ),
            [worker] * recipe.workers_per_trial * (wanted or 1),
            tell=progress,
        )

        def run(orders: TrialQueue) -> None:
            from .trials.ray_tune import run_on_tune

            keeper = orders.keeper
            number = min(at_once, keeper.trials)
            progress(
                f"{keeper.folder.name}: {keeper.trials} trials, {number} at once, "
                f"{keeper.finished} done before"
            )
            with interrupt_when_lost():
                run_on_tune(
                    orders,
                    folder=keeper.folder,
                    resources=recipe.resources,
                    workers=recipe.workers_per_trial,
                    at_once=number,
                    max_failures=recipe.max_failures,
                )

        yield run


def _observe(show: Callable[[SweepStatus], None] | None) -> Callable[[SweepStatus], None]:
    """Show a sweep's state as before, and in Ray's gauges where this process is connected."""

    def observe(status: SweepStatus) -> None:
        if is_in_session():
            for state, count in status.counts.items():
                set_gauge("spikeseg_trials", count, sweep=status.name, state=state)
        if show is not None:
            show(status)

    return observe


def _orders(
    plan: SweepPlan,
    keeper: Keeper,
    record: SweepRecord,
    progress: Callable[[str], None],
    show: Callable[[SweepStatus], None] | None,
    work: TrialFunction,
) -> TrialQueue:
    watcher = Watcher(plan, keeper)
    resources = plan.recipe.resources
    # Of this driver alone: the order to an earlier one must not speak for it.
    leave = keeper.folder / f"leave-{time.time_ns()}"
    dataset = open_data(plan.base.config)

    def prepare(proposal: Proposal) -> dict[str, Any]:
        resolved = plan.experiment(proposal.point)
        check_data(resolved.config, dataset)
        config = dump(resolved.config)
        run = RunFolder(proposal.folder)
        run.write("config.yaml", config)
        run.write("origins.json", json.dumps(resolved.origins, indent=1))
        if show is not None:
            show(watcher.status())
        return {
            "config": config,
            "origins": resolved.origins,
            "folder": str(proposal.folder),
            "parent": record.journal.id,
            "tags": record.trial_tags(keeper.records[proposal.number]),
            "workers": plan.recipe.workers_per_trial,
            "resources": {"CPU": resources.cpu, "GPU": resources.gpu},
            "max_failures": plan.recipe.max_failures,
            "leave": str(leave),
        }

    def on_report(number: int, report: TrialReport, verdict: Verdict) -> None:
        record.begin_sending()
        if verdict.state is not None:
            run = RunFolder(keeper.folder / "trials" / str(number))
            run.write(VERDICT, json.dumps(asdict(verdict)))
            record.record_end(keeper.records[number])
            _follow(watcher.standing, keeper, record)
        if verdict.state is not None or not report.replayed:
            progress(watcher.line(number, report, verdict))
        status = watcher.status()
        progress(watcher.status_line(status))
        if show is not None:
            show(status)

    def take_points() -> None:
        keeper.add(read_added(keeper.folder))

    return TrialQueue(keeper, prepare, on_report, work, leave, take_points)


def _follow(standing: Standing, keeper: Keeper, record: SweepRecord) -> None:
    """Record best value and hypervolume over trials in the sweep's own run."""
    standing.update()
    if not standing.scores:
        return
    values = {"sweep/best": standing.scores[0]}
    if standing.hypervolume is not None:
        values["sweep/hypervolume"] = standing.hypervolume
    record.follow(keeper.finished, values, standing.scores)
