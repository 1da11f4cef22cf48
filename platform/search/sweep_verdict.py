"""What a sweep says, in sentences: which is highest, by how much, whether that may be noise."""

import json
from collections.abc import Iterator, Sequence

from ..evaluation.baselines import describe_baselines, is_degenerate
from ..evaluation.number_text import round_difference, round_metric
from ..evaluation.seed_statistics import Difference, compare_seeds, summarize
from .study.trial_records import TrialRecord
from .sweep_figures import label_trial
from .sweep_file.plan import SweepPlan
from .sweep_file.point_names import name_point
from .sweep_groups import Groups, describe_leader, measure_groups
from .sweep_standing import learned_results


def group_seeds(results: Sequence[TrialRecord]) -> list[list[TrialRecord]]:
    """Trials that differ in nothing but the seed together."""
    groups: dict[str, list[TrialRecord]] = {}
    for item in results:
        same = {key: value for key, value in item.point.items() if key != "seed"}
        groups.setdefault(json.dumps(same, sort_keys=True), []).append(item)
    return list(groups.values())


def write_verdict(plan: SweepPlan, records: dict[int, TrialRecord]) -> list[str]:
    """The sentences at the top of a sweep's report.

    Args:
        plan: The sweep.
        records: Its trials by number, at least one of them a result.
    """
    results = learned_results(records)
    sentences = []
    nothing_learned = all(is_degenerate(item.history.get(item.step, {})) for item in results)
    if nothing_learned:
        sentences.append(
            "Every result is degenerate: within 1 point of an answer that ignores the image. "
            "Nothing was learned, and no trial is better than another."
        )
    groups = measure_groups(plan, records)
    if groups is not None and groups.groups:
        sentences += [] if nothing_learned else _judge_groups(plan, groups)
    else:
        sentences += _judge_trials(plan, results)
    sentences += list_untried(plan, results)
    last = results[0].history.get(results[0].step, {})
    baselines = describe_baselines(last, "val").replace(", degenerate", "")
    if baselines:
        sentences.append(f"val/mIoU of answers that ignore the image:{baselines}.")
    return sentences


def describe_lead(plan: SweepPlan, results: Sequence[TrialRecord]) -> str:
    """The highest result by the first objective and what it is ahead by, in half a sentence.

    Args:
        plan: The sweep.
        results: Trials that count as results, at least one.
    """
    objective = plan.recipe.objectives[0]
    ordered = sorted(group_seeds(results), key=lambda group: objective.sign * _mean(group, 0))
    word = "highest" if objective.direction == "maximize" else "lowest"
    first = f"{word} is {_call(plan, ordered[0])}"
    if len(ordered) == 1:
        return f"{first}, with nothing to compare it with"
    ahead = _compare_next(ordered, 0)
    shown = round_difference(objective.metric, ahead.value)
    if not shown.strip("+-0."):
        return f"{first}, in a tie with {_call(plan, ordered[1])}"
    if not ahead.known:
        told = "one seed cannot tell that from noise"
    else:
        within = "more than" if ahead.beyond_seeds else "within"
        told = f"{within} the spread of seeds (Welch, 95 %)"
    return f"{first}, {shown} from the next, {_call(plan, ordered[1])}: {told}"


def _call(plan: SweepPlan, group: Sequence[TrialRecord]) -> str:
    """`trial 3 (T2 D4 levels)`, or `trials 3, 4 (…)` of several seeds."""
    word = "trials" if len(group) > 1 else "trial"
    numbers = ", ".join(str(item.number) for item in group)
    called = name_point(plan, group[0].point)
    return f"{word} {numbers}{f' ({called})' if called else ''}"


def _compare_next(ordered: Sequence[Sequence[TrialRecord]], axis: int) -> Difference:
    """The first of the ordered experiments minus the second, among all."""
    return compare_seeds(
        [item.values[axis] for item in ordered[1]],
        [item.values[axis] for item in ordered[0]],
        comparisons=len(ordered) - 1,
    )


def list_untried(plan: SweepPlan, results: Sequence[TrialRecord]) -> list[str]:
    """A sentence for each parameter of which all results have one value: it was not compared.

    Args:
        plan: The sweep.
        results: Trials that count as results.
    """
    sentences = []
    for key in plan.recipe.space.dimensions:
        values = {
            json.dumps(item.point[key]): item.point[key] for item in results if key in item.point
        }
        if len(values) == 1 and len(results) > 1:
            (value,) = values.values()
            sentences.append(
                f"{key} is {value} in every result: nothing is known of its other values."
            )
    return sentences


def describe_rank(plan: SweepPlan, place: int, results: int, sweep: str) -> str:
    """A trial's place in its sweep, with what may be concluded from it.

    Args:
        plan: The sweep.
        place: From 1 on, by the first objective.
        results: Trials that count as results.
        sweep: The sweep's name.
    """
    rank = f"rank {place} of {results} in {sweep}"
    if plan.recipe.replicates is not None:
        return f"{rank}, among single trainings; its page compares means of seeds"
    if "seed" in plan.recipe.space.dimensions:
        return rank
    return f"{rank}, one seed a point: it may be chance"


def _judge_groups(plan: SweepPlan, groups: Groups) -> Iterator[str]:
    """What the seeds of its configurations tell, for each objective."""
    for axis in range(len(plan.recipe.objectives)):
        sentence = describe_leader(plan, groups, axis)
        yield f"{sentence[0].upper()}{sentence[1:]}."


def _judge_trials(plan: SweepPlan, results: Sequence[TrialRecord]) -> Iterator[str]:
    """Which result is highest, for each objective, and whether that may be noise."""
    groups = group_seeds(results)
    for axis, objective in enumerate(plan.recipe.objectives):
        word = "Highest" if objective.direction == "maximize" else "Lowest"
        ordered = sorted(groups, key=lambda group: objective.sign * _mean(group, axis))
        yield f"{word} {objective.metric}: {_compare(plan, ordered, axis)}"


def _compare(plan: SweepPlan, ordered: Sequence[Sequence[TrialRecord]], axis: int) -> str:
    """The first of the ordered experiments against the second."""
    name = plan.recipe.objectives[axis].metric
    first = ordered[0]
    text = f"{_describe(plan, first, axis)}."
    if len(ordered) == 1:
        return f"{text} There is no other result to compare it with."
    second = ordered[1]
    difference = _compare_next(ordered, axis)
    shown = round_difference(name, difference.value)
    text += f" Next: {_describe(plan, second, axis)}, a difference of {shown}."
    if not shown.strip("+-0."):
        ties = [
            g
            for g in ordered
            if not round_difference(name, _mean(g, axis) - _mean(first, axis)).strip("+-0.")
        ]
        return f"{text} That is a tie of {len(ties)}; none of them is the best."
    if not difference.known:
        return (
            f"{text} Whether that is more than the spread of seeds cannot be told from one seed; "
            "none is called the best."
        )
    if difference.beyond_seeds:
        return f"{text} That is more than the spread of seeds (Welch, 95 %)."
    return f"{text} That is within the spread of seeds (Welch, 95 %): none is the best."


def _describe(plan: SweepPlan, group: Sequence[TrialRecord], axis: int) -> str:
    name = plan.recipe.objectives[axis].metric
    summary = summarize([item.values[axis] for item in group])
    count = summary.seeds
    numbers = ", ".join(str(item.number) for item in group)
    seeds = f"{count} seeds" if count > 1 else f"seed {plan.experiment(group[0].point).config.seed}"
    word = "trials" if count > 1 else "trial"
    label = label_trial(plan, group[0])
    named = "" if label == f"trial {numbers}" else f"{label}, "
    return (
        f"{round_metric(name, summary.mean, summary.half_width)} ({named}{word} {numbers}, {seeds})"
    )


def _mean(group: Sequence[TrialRecord], axis: int) -> float:
    return summarize([item.values[axis] for item in group]).mean
