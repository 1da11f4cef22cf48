"""Checks of the largest experiment: memory and time of one step, the whole training's time."""

from .findings import Finding, fail, format_bytes, ok, skipped, warn
from .subject import Subject

_DAYS = 14


def check_step_memory(subject: Subject) -> Finding:
    """Processes that train at once fit into memory at the largest T, D, crop and batch."""
    if subject.largest is None:
        return skipped("no recipe was named")
    step = subject.step
    if isinstance(step, str):
        return skipped(step)
    available = subject.machine.available
    if subject.machine.memory_limit is not None:
        left = subject.machine.memory_limit - (subject.machine.memory_used or 0)
        available = left if available is None else min(available, left)
    if available is None:
        return skipped("the system does not say how much memory is free")
    needed = step.peak * subject.processes
    seen = (
        f"{subject.processes} x {format_bytes(step.peak)}{_estimated(subject)} are needed at "
        f"{describe_largest(subject)}, {format_bytes(available)} are available"
    )
    remedy = "a smaller trainer.micro_batch_size, crop or number of timesteps, or fewer at once"
    if needed > available:
        return fail(seen, remedy)
    return warn(seen, remedy) if needed > 0.85 * available else ok(seen)


def check_step_time(subject: Subject) -> Finding:
    """One step of the largest experiment ends, and all steps together do in a bearable time."""
    if subject.largest is None:
        return skipped("no recipe was named")
    step = subject.step
    if isinstance(step, str):
        if isinstance(subject.dataset, str):
            return skipped("the data cannot be opened")
        return fail(step, "a smaller crop, micro-batch or number of timesteps; or a GPU")
    trainer = subject.largest.config.trainer
    share = -(-trainer.micro_batches // max(1, trainer.workers))
    seconds = step.seconds * share
    trials = 1 if subject.plan is None else subject.plan.trials
    days = seconds * trainer.max_steps * trials / 86400
    seen = (
        f"a step takes {seconds:.3g} s{_estimated(subject)} at {describe_largest(subject)}; "
        f"{trainer.max_steps} steps{'' if trials == 1 else f' x {trials} trials'}: at most "
        f"{days * 24:.3g} h of one process"
    )
    if days > _DAYS:
        return warn(seen, "a GPU, a smaller crop, fewer steps, or more workers")
    if trainer.step_timeout_s is not None and seconds > trainer.step_timeout_s:
        return fail(seen, f"trainer.step_timeout_s={seconds * 3:.0f}, or a smaller step")
    return ok(seen)


def describe_largest(subject: Subject) -> str:
    """The largest experiment in a few words: T, D, crop, batch."""
    assert subject.largest is not None
    config = subject.largest.config
    height, width = config.data.transform.crop
    return (
        f"T {config.model.neuron.timesteps}, D {config.model.neuron.levels}, {height} x {width}, "
        f"{config.trainer.micro_batch_size} images"
    )


def _estimated(subject: Subject) -> str:
    step = subject.step
    if isinstance(step, str) or not step.estimated:
        return ""
    return f" (estimated from a crop of {step.crop[0]} x {step.crop[1]})"
