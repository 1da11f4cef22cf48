"""Every name that a run holds in MLflow: metrics, tags and artifacts, in one place."""

METRICS = {
    "train/loss": "sum of the weighted loss terms",
    "train/loss_class": "class term",
    "train/loss_mask": "mask term",
    "train/loss_dice": "dice term",
    "train/loss_pixel": "pixel head's cross entropy, where it is used",
    "train/loss_semantic": "cross entropy of the joined masks, where it is used",
    "train/lr": "base learning rate of the step",
    "train/grad_norm": "global norm of the gradient before clipping",
    "perf/images_per_s": "images trained on per second since the last evaluation",
    "perf/memory_mb": "largest memory of the process, or of the GPU where there is one",
    "val/mIoU": "percent",
    "val/mAcc": "percent",
    "val/aAcc": "percent",
    "val/category_mIoU": "percent, of a label space with categories (Cityscapes)",
    "test/category_mIoU": "percent, once, likewise",
    "test/mIoU": "percent, once, of the checkpoint that val chose",
    "test/mAcc": "percent, once",
    "test/aAcc": "percent, once",
    "energy/mJ": "theoretical energy of one image in millijoule",
    "snn/firing_rate": "mean spike count per neuron and time step over layers, in [0, D]",
    "snn/dead_layers": "share of layers that never fired on the measured images",
    "snn/dead_fraction": "share of neuron values that were 0, in the layer where it is largest",
    "snn/saturated_fraction": "share of neuron values that were D, likewise",
    "best/val_mIoU": "highest val/mIoU so far, in percent",
    "best/step": "its step",
    "system/cpu_utilization_percentage": "of the whole machine",
    "system/system_memory_usage_percentage": "of the whole machine",
    "system/process_memory_megabytes": "resident memory of rank 0",
    "system/gpu_memory_usage_megabytes": "used on rank 0's GPU, where it has one",
}

TAGS = {
    "git_sha": "commit of the code, where it is a checkout",
    "dirty": "whether the code differs from it; artifact code.diff says how",
    "code_digest": "SHA-256 over the package's files",
    "config_digest": "SHA-256 over the resolved configuration",
    "data_digest": "digest of the packed data set",
    "recipe": "name of the recipe",
    "seed": "seed of weights, order and augmentation",
    "T": "time steps",
    "D": "integer levels",
    "normalization": "what spike counts are divided by",
    "world_size": "workers",
    "attempt": "how often the run was started",
    "ray_job_id": "in a Ray job",
    "sweep": "of a trial: the sweep's name",
    "trial": "of a trial: its number",
    "run_name": "name of the run's folder or trial",
    "figures_failed": "why a figure could not be drawn, where one could not",
    "records_dropped": "records that a full disk or the journal's limit cost, where there are any",
    "records_damaged": "lines of the journal that a disk damaged, where there are any",
    "replay_of": "of a replay: the run that it repeats",
}

ARTIFACTS = (
    "config.yaml",
    "provenance.json",
    "code.diff",
    "images/val~rows",
    "tables/val_classes",
    "tables/layers",
    "figures/curves.png",
    "figures/confusion.png",
    "figures/firing.png",
    "checkpoints/best",
    "checkpoints/final",
)

# A training's run holds all of the above, the two kinds of run of a sweep less.

TRIAL_LACKS = ("test/", "figures/", "checkpoints/")
"""How names begin that a trial's run does not have: only a training scores test and draws."""

TRIAL_TAGS = {
    "group": "trials that differ in nothing but the seed share it",
    "state": "COMPLETE, PRUNED or FAIL",
    "reason": "why it ended so",
    "attempts": "how often it was started",
    "violations": "the constraints that it breaks; only where it does",
}

SWEEP_METRICS = {
    "best/": "the best trial's value of each objective; slashes in its name become _",
    "sweep/best": "best value of the first objective so far",
    "sweep/hypervolume": "of the front, where objectives have references",
    "trials/": "trials in each state",
}
"""Metrics of a sweep's own run, or how they begin; their steps are trials that have ended."""

SWEEP_TAGS = (
    *("sweep", "recipe", "base", "trials"),
    *("best_trial", "best_point"),
    *("code_digest", "config_digest"),
    *("git_sha", "dirty"),
)
"""Tags of a sweep's own run; `base` is the recipe that its trials change, `best_*` are there
once a trial is a result."""

SWEEP_ARTIFACTS = (
    *("config.yaml", "recipe.yaml", "provenance.json", "code.diff"),
    *("results.csv", "results.json", "front.csv", "front.json", "best.yaml", "figures"),
)
