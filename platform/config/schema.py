"""The fields of an experiment, with types, ranges and defaults."""

import re
import warnings
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ...datasets.transforms import TransformConfig
from ...model.config import LossConfig, ModelConfig
from .phases import TransformPhase, list_phases
from .typed_paths import resolve_path

OWN_TAGS = frozenset(
    (
        *("T", "D", "normalization", "seed", "recipe", "base", "sweep", "trial", "trials"),
        *(
            "group",
            "configuration",
            "run",
            "run_name",
            "world_size",
            "attempt",
            "attempts",
            "state",
            "reason",
        ),
        "cause",
        *("violations", "degenerate", "best_trial", "best_point", "replay_of", "ray_job_id"),
        *("git_sha", "dirty", "code_diff_digest", "code_digest", "config_digest", "data_digest"),
        *("figures_failed", "records_dropped", "records_damaged"),
    )
)
"""Names of tags that the platform sets itself."""
_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataConfig(_Section):
    """Which packed data set is read, and how.

    Attributes:
        path: Folder of a packed data set (`spikeseg data pack`).
        task: `semantic` trains one mask per class; `panoptic` one per segment, scores PQ besides
            mIoU, and needs data with segments and the query decoder.
        object_threshold: Class probability in [0, 1] that a query needs to be a panoptic segment
            (published: 0.8; networks of few steps need less to show anything).
        overlap_threshold: Share of its mask in [0, 1] that such a segment must keep.
        transform: Augmentation in training, resizing in evaluation.
        phases: Phases at the start of a training in which some fields of `transform` differ, in
            order; the rest of the training has `transform` itself.
        shuffle_window: Rows among which the order is shuffled; at least 1.
        prefetch: Micro-batches decoded ahead by a thread beside training; 0 decodes in place.
        evaluation_batch: Images in one forward pass of an evaluation.
        on_bad_row: What a training does about a row that cannot be read any more: `refuse` stops;
            `quarantine` reads the next row in its place and warns, for ten different rows at most.
            Each worker counts the rows that it met itself, and from 0 after a restart.
    """

    path: str
    task: Literal["semantic", "panoptic"] = "semantic"
    object_threshold: float = Field(default=0.8, ge=0, le=1)
    overlap_threshold: float = Field(default=0.8, ge=0, le=1)
    transform: TransformConfig
    phases: list[TransformPhase] = []
    shuffle_window: int = Field(default=4096, ge=1)
    prefetch: int = Field(default=2, ge=0)
    evaluation_batch: int = Field(default=8, ge=1)
    on_bad_row: Literal["refuse", "quarantine"] = "refuse"


class InitConfig(_Section):
    """Weights that a new training starts from; what no file gives is drawn by the seed.

    Attributes:
        backbone: File of an ImageNet checkpoint or of a published segmentor, folder that
            `spikeseg convert` made of one, or folder of a run or of a checkpoint of ours: the
            backbone alone is loaded, whatever classes and decoder the source has.
        segmentor: File of a published segmentor, folder that `spikeseg convert` made of one, or
            folder of a run or of a checkpoint of ours: every weight is loaded.
    """

    backbone: str | None = None
    segmentor: str | None = None

    @field_validator("backbone", "segmentor")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        # Workers on other nodes have working folders of their own.
        return None if path is None else str(resolve_path(path))

    @model_validator(mode="after")
    def _not_both(self) -> "InitConfig":
        if self.backbone is not None and self.segmentor is not None:
            raise ValueError("backbone must not be given beside segmentor, which holds one")
        return self


class ParameterRule(_Section):
    """Factors for the parameters whose name matches a shell-style pattern; the first match counts.

    Attributes:
        match: Pattern such as `backbone.*`.
        lr: Factor on the learning rate.
        weight_decay: Factor on the weight decay.
    """

    match: str
    lr: float = Field(default=1.0, ge=0)
    weight_decay: float = Field(default=1.0, ge=0)


class OptimizerConfig(_Section):
    """AdamW, linear warm-up, decay, clipping by the global norm.

    Attributes:
        lr: Base learning rate.
        weight_decay: Decoupled weight decay.
        decay_vectors: Whether it also acts on norms and biases, the parameters of one axis (as
            published).
        betas: AdamW's averaging coefficients.
        clip_norm: Largest global gradient norm; None does not clip.
        warmup_steps: Steps of linear warm-up from `warmup_start` x lr.
        warmup_start: First factor of the warm-up.
        decay: `poly` falls as (1 - progress) ** power, `cosine` as (1 + cos(pi progress)) / 2.
        power: Power of the polynomial decay.
        decay_over: What progress counts: `steps`, or the `cost` of the steps in `data.phases`, so
            that cheap steps at the start leave more of the rate to the rest.
        decay_steps: Step at which the rate reaches 0; None takes trainer.max_steps.
        rules: Per-parameter factors, first match wins.
    """

    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    decay_vectors: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_start: float = Field(default=1e-6, ge=0, le=1)
    decay: Literal["poly", "cosine"] = "poly"
    power: float = Field(default=1.0, ge=0)
    decay_over: Literal["steps", "cost"] = "steps"
    decay_steps: int | None = Field(default=None, ge=1)
    rules: list[ParameterRule] = []


class TrainerConfig(_Section):
    """How long, how often, how many, on what.

    Attributes:
        max_steps: Optimizer steps of the whole training.
        micro_batch_size: Images of one forward pass; BatchNorm sees these. Out of memory halves
            it, with twice the micro-batches, for the rest of the run; the run records that.
        micro_batches: Micro-batches of one optimizer step; at least the number of workers.
        workers: 0 trains in this process, n are Ray Train workers.
        min_workers: Go on with fewer workers, down to these, where nodes are lost; None waits
            until `workers` are there again.
        evaluate_every: Steps between evaluations (each is a checkpoint too); the last step always
            has one.
        checkpoint_every: Steps between further checkpoints; None for those of evaluations alone.
        log_every: Steps between two progress lines and training metrics.
        keep_checkpoints: Newest checkpoints kept besides the best.
        keep_every: Checkpoints at multiples of this many steps are kept too; None for none.
        mirror: Address below which every checkpoint is copied to `<run's name>/`, of any file
            system that pyarrow knows (`s3://bucket/runs`, `gs://…`, `file:///…`); None for none.
        patience: Evaluations without a better val/mIoU after which training ends; None for never.
        precision: Type of activations; `bf16` and `fp16` run under autocast, `fp16` with a
            gradient scaler and on CUDA alone.
        device: `auto` takes the GPU that torch sees, else the CPU.
        threads: torch threads of one worker, set and not inherited.
        onednn: Whether oneDNN's CPU kernels are used, set and not inherited.
        memory_format: Order of weights and images in memory: `channels_last`, `contiguous`, or
            `auto`: channels_last on a CPU and, in 16 bits, on a GPU. It decides last bits alone.
        cuda_graph: Whether forward and backward pass of a micro-batch are captured as a CUDA graph
            once and replayed. Takes a GPU, model.decoder fpn without the Lovász term, and fp32 or
            bf16; elsewhere a warning says why not, and steps run operation by operation.
        ema_decay: Decay of the averaged weights that are evaluated; None for none.
        ema_start: How the average begins, as the weights after the first step: `ramp` has the decay
            rise from 2/11 to `ema_decay`, so that it forgets them within a few steps; `constant`,
            as before 0.2, has `ema_decay` from the second step on, so that they still are
            ema_decay ** (n - 1) of the average after n steps.
        reduction: `flat` sums gradients over workers in one all-reduce; `strict` sums them in the
            order of their micro-batches and is byte-equal for any number of workers.
        batch_norm: `micro` normalizes each micro-batch by itself, so that results do not depend on
            the number of workers; `synchronized` all images of a step together (published: SyncBN),
            with one micro-batch a worker.
        max_failures: Worker deaths survived before a run is given up.
        nonfinite: A loss or gradient that is not finite: `stop` the run, `skip` the step's update,
            or `rollback` to the newest checkpoint and jump over the rows up to that step.
        nonfinite_budget: Skipped steps and rollbacks together, before the run stops after all.
        step_timeout_s: Seconds that a step or a batch of an evaluation may take before the worker
            dumps its stacks and ends; None waits for ever.
        ledger: Whether each worker writes down the rows of every step (`ledger/`).
        energy_images: Validation images on which energy and firing rates are measured.
        test: Whether the best checkpoint is scored on the test split at the end.
    """

    max_steps: int = Field(ge=1)
    micro_batch_size: int = Field(ge=1)
    micro_batches: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    min_workers: int | None = Field(default=None, ge=1)
    evaluate_every: int = Field(ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=20, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1)
    keep_every: int | None = Field(default=None, ge=1)
    mirror: str | None = None
    patience: int | None = Field(default=None, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1)
    onednn: bool = True
    memory_format: Literal["auto", "channels_last", "contiguous"] = "auto"
    cuda_graph: bool = False
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    ema_start: Literal["ramp", "constant"] = "constant"
    reduction: Literal["flat", "strict"] = "flat"
    batch_norm: Literal["micro", "synchronized"] = "micro"
    max_failures: int = Field(default=3, ge=0)
    nonfinite: Literal["stop", "skip", "rollback"] = "stop"
    nonfinite_budget: int = Field(default=10, ge=1)
    step_timeout_s: float | None = Field(default=1800.0, gt=0)
    ledger: bool = False
    energy_images: int = Field(default=8, ge=1)
    test: bool = True

    @model_validator(mode="after")
    def _workers_have_work(self) -> "TrainerConfig":
        if self.workers > self.micro_batches:
            raise ValueError(
                f"workers must not exceed micro_batches ({self.micro_batches}), since "
                f"micro-batches are handed out whole, got {self.workers}"
            )
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(
                f"min_workers must not exceed workers ({self.workers}), got {self.min_workers}"
            )
        return self

    @model_validator(mode="after")
    def _synchronized_workers_keep_step(self) -> "TrainerConfig":
        if self.batch_norm == "synchronized":
            if self.micro_batches != max(1, self.workers):
                raise ValueError(
                    "batch_norm synchronized needs one micro-batch a worker, got "
                    f"{self.micro_batches} micro_batches and {self.workers} workers"
                )
            if self.min_workers not in (None, self.workers):
                raise ValueError(
                    "batch_norm synchronized cannot go on with fewer workers: min_workers must be "
                    f"null, got {self.min_workers}"
                )
        return self


# pydantic warns of it: its models have a class method of this name, which nobody calls.
warnings.filterwarnings("ignore", 'Field name "register" in "TrackingConfig" shadows')


class TrackingConfig(_Section):
    """What MLflow is told.

    Attributes:
        experiment: MLflow experiment of the run.
        images: Validation rows on the contact sheet, the same at every evaluation.
        checkpoints: Whether the best and the final checkpoint become artifacts of the run.
        journal: Local folder for journals, brought to the run's folder at every evaluation; None
            keeps them in the run's folder, which is right unless that is slow to append to.
        journal_limit_mb: Megabytes of one run's journal; what comes after is dropped, and said.
        system_interval: Seconds between two samples of system metrics.
        first_step: Whether the untrained network is looked at: firing rate and gradient norm of
            every layer at the first step, drawn, and its score as step 0 of all curves. Costs one
            step and one evaluation; None where `trainer.max_steps` is at least 100.
        code_diff: Whether the difference of the code from its commit becomes an artifact. It is
            left out unless asked for, since only secrets of known forms and names are hidden in
            it; the tags tell in any case that there is one, and its digest.
        tags: A team's own tags, on runs, trials and sweeps: letters, digits, `_` and `-`, and no
            name that the platform uses itself.
        register: Name in MLflow's registry under which a sweep's best trial, or a run of its own,
            becomes a version with the alias `champion`; None registers nothing.
    """

    experiment: str = Field(default="spikeseg", min_length=1)
    images: int = Field(default=4, ge=0)
    checkpoints: bool = True
    journal: str | None = None
    journal_limit_mb: int = Field(default=4000, ge=1)
    system_interval: float = Field(default=10.0, ge=1)
    first_step: bool | None = None
    code_diff: bool = False
    tags: dict[str, str] = {}
    register: str | None = Field(default=None, pattern=r"^[^/:]+$", max_length=250)

    @field_validator("tags")
    @classmethod
    def _tags_are_free(cls, tags: dict[str, str]) -> dict[str, str]:
        for name in tags:
            if not _TAG.fullmatch(name) or name in OWN_TAGS:
                raise ValueError(
                    f"{name!r} must be letters, digits, _ and - (at most 100), and none of "
                    f"{', '.join(sorted(OWN_TAGS))}"
                )
        return tags


class ExperimentConfig(_Section):
    """One experiment; saved with its run, it alone rebuilds it.

    Attributes:
        name: Name of the recipe, first part of the run's name.
        seed: Seed of initial weights, order and augmentation.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    seed: int = Field(ge=0, lt=2**63)
    data: DataConfig
    model: ModelConfig
    init: InitConfig = InitConfig()
    loss: LossConfig
    optimizer: OptimizerConfig
    trainer: TrainerConfig
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _panoptic_has_queries(self) -> "ExperimentConfig":
        if self.data.task == "panoptic" and self.model.decoder != "query":
            raise ValueError(
                f"data.task is panoptic, which needs model.decoder query, got {self.model.decoder}"
            )
        return self

    @model_validator(mode="after")
    def _every_channel_is_normalized(self) -> "ExperimentConfig":
        if len(self.data.transform.mean) != self.model.in_channels:
            raise ValueError(
                f"data.transform.mean and std must have {self.model.in_channels} numbers, one for "
                f"each of model.in_channels, got {len(self.data.transform.mean)}"
            )
        return self

    @model_validator(mode="after")
    def _phases_are_in_order(self) -> "ExperimentConfig":
        list_phases(self.data.transform, self.data.phases, self.trainer.max_steps)
        return self

    @model_validator(mode="after")
    def _cosine_has_no_power(self) -> "ExperimentConfig":
        if self.optimizer.decay == "cosine" and self.optimizer.power != 1:
            raise ValueError(
                "optimizer.power is of optimizer.decay poly and must be left out with cosine, got "
                f"{self.optimizer.power}"
            )
        return self

    @model_validator(mode="after")
    def _matching_by_class_is_semantic(self) -> "ExperimentConfig":
        model = self.model
        if (
            self.data.task == "panoptic"
            and model.decoder == "query"
            and model.query.matching == "class"
        ):
            raise ValueError(
                "data.task is panoptic, which needs model.query.matching hungarian, got class: "
                "query k answers for class k, and two segments of one class need two queries"
            )
        return self
