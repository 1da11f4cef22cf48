"""Published keys and ours: renaming, and comparison of two state dicts."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

BACKBONE = "backbone."
DECODER = "decode_head."
_EMBEDDING = "decode_head.embedding."


def to_published_name(ours: str, *, bare: bool = False) -> str:
    """Published key of one of our state-dict keys.

    Our modules carry the published names but for one: the mask embedding's parts stand in a module
    of their own.

    Args:
        ours: Our key; a published one stays as it is.
        bare: Whether in the form of ImageNet checkpoints, without `backbone.`.
    """
    if bare:
        return ours.removeprefix(BACKBONE)
    return ours.replace(_EMBEDDING, DECODER, 1) if ours.startswith(_EMBEDDING) else ours


@dataclass(frozen=True)
class KeyReport:
    """Comparison of two state dicts.

    Attributes:
        matched: Keys that both have, with equal shapes.
        missing: Keys that the model wants and the checkpoint lacks.
        unexpected: Keys that the checkpoint has and the model does not want.
        mismatched: Keys with unequal shapes, with both shapes.
        placeholders: Classes in the file that were not loaded but made inert.
        assumed: Settings, as `name=value`, that no key or shape shows.
        retyped: Matched tensors that take the model's type, as `float16 to float32: 3 tensors`.
    """

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)
    placeholders: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    retyped: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every key of both sides has a counterpart."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def numbers(self) -> str:
        """How many keys there are of each kind, in a line."""
        return (
            f"{len(self.matched)} matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        )

    def require_complete(self, name: str) -> None:
        """Refuse weights that do not fit.

        Args:
            name: What they came from.

        Raises:
            ValueError: With both numbers of classes where these differ, else with the report.
        """
        for key, ours, theirs in self.mismatched:
            head = key.removeprefix(DECODER)
            extra = {"cls_embed.weight": 1, "conv_seg.weight": 0, "head.weight": 0}
            if head in extra and ours[1:] == theirs[1:]:
                raise ValueError(
                    f"{name}: num_classes is {ours[0] - extra[head]} in the model and "
                    f"{theirs[0] - extra[head]} in the weights ({key})"
                )
        if not self.complete:
            raise ValueError(f"{name}: weights and model do not fit: {self.sentence}")

    @property
    def sentence(self) -> str:
        """The numbers and the first key of each kind that did not match."""
        first = [f"missing {key}" for key in self.missing[:1]]
        first += [f"unexpected {key}" for key in self.unexpected[:1]]
        first += [
            f"{key} is {ours} in the model and {theirs} in the file"
            for key, ours, theirs in self.mismatched[:1]
        ]
        return "; first: ".join([self.numbers, ", ".join(first)]) if first else self.numbers

    def __str__(self) -> str:
        """The numbers, then a line per key that did not match."""
        lines = [self.numbers]
        lines += [f"missing     {key}" for key in self.missing]
        lines += [f"unexpected  {key}" for key in self.unexpected]
        lines += [
            f"shape       {key}: {a} in the model, {b} in the file" for key, a, b in self.mismatched
        ]
        lines += [f"placeholder {name}" for name in self.placeholders]
        lines += [f"assumed     {setting}" for setting in self.assumed]
        lines += [f"type        {change}" for change in self.retyped]
        return "\n".join(lines)


def compare_keys(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    name: str,
    placeholders: list[str] | None = None,
) -> tuple[KeyReport, dict[str, Tensor]]:
    """Compare a state dict with a model; nothing is loaded.

    Args:
        model: A segmentor, one of its parts, or a classifier.
        state: Keys -> tensors, published keys or ours; a bare ImageNet backbone's keys are found
            below `backbone.`.
        name: What they came from.
        placeholders: Reported along.

    Returns:
        The report, and what fits: our keys -> tensors.

    Raises:
        ValueError: Where a key is given in two forms, or a value that fits is not finite.
    """
    ours = model.state_dict()
    our_keys = {to_published_name(key): key for key in ours}
    values: dict[str, Tensor] = {}
    forms: dict[str, str] = {}
    for form, value in state.items():
        key = to_published_name(form)
        if key not in our_keys and BACKBONE + key in our_keys:
            key = BACKBONE + key
        if key in values:
            raise ValueError(f"{name}: {key} is given twice, as {forms[key]} and as {form}")
        values[key], forms[key] = value, form
    shapes = {key: tuple(ours[our_key].shape) for key, our_key in our_keys.items()}
    alike = [key for key in values if key in our_keys and tuple(values[key].shape) == shapes[key]]
    for key in alike:
        _require_finite(values[key], f"{name}: {forms[key]}")
    report = KeyReport(
        matched=alike,
        missing=[key for key in our_keys if key not in values],
        unexpected=[key for key in values if key not in our_keys],
        mismatched=[
            (key, shapes[key], tuple(value.shape))
            for key, value in values.items()
            if key in our_keys and tuple(value.shape) != shapes[key]
        ],
        placeholders=placeholders or [],
        retyped=_count_retyped([(values[key], ours[our_keys[key]]) for key in alike]),
    )
    return report, {our_keys[key]: values[key] for key in alike}


def _count_retyped(pairs: list[tuple[Tensor, Tensor]]) -> list[str]:
    names = [tuple(str(t.dtype).removeprefix("torch.") for t in pair) for pair in pairs]
    changes = Counter(f"{before} to {after}" for before, after in names if before != after)
    return [f"{change}: {number} tensors" for change, number in sorted(changes.items())]


def _require_finite(value: Tensor, name: str) -> None:
    if value.is_meta or not value.is_floating_point():
        return
    wrong = value.numel() - int(value.isfinite().sum())
    if wrong:
        raise ValueError(f"{name} must be finite, {wrong} of {value.numel()} values are not")
