"""Numbers for people: as many digits as mean something."""

import math

from ..tracking.metric_table import METRICS

_PERCENT_DIGITS = 1
_SIGNIFICANT = 3
# What is smaller or larger is written with an exponent.
_SMALL, _LARGE = 1e-6, 1e9


def round_metric(name: str, value: float | None, half_width: float | None = None) -> str:
    """A metric's value as text: percent to a tenth, other numbers to three digits.

    Args:
        name: Its name in MLflow.
        value: The value; None for none.
        half_width: Half of its interval, which decides the digits where there is one.

    Returns:
        `29.0`, `29.0 ± 1.2`, `0.0333`; `-` where there is no value.
    """
    if value is None or not math.isfinite(value):
        return "-" if value is None else str(value)
    if half_width is None or not math.isfinite(half_width):
        return _round_alone(name, value)
    if half_width == 0:
        return f"{_round_alone(name, value)} ± 0"
    digits = _count_digits(name, half_width)
    return f"{value:.{digits}f} ± {half_width:.{digits}f}"


def round_interval(name: str, low: float, high: float) -> str:
    """Ends of an interval of a metric as text: `28.4 to 31.0`.

    Args:
        name: The metric's name in MLflow.
        low: Lower end; its distance to the upper one decides the digits.
        high: Upper end.
    """
    if high == low or not math.isfinite(high - low):
        return f"{_round_alone(name, low)} to {_round_alone(name, high)}"
    digits = _count_digits(name, (high - low) / 2)
    return f"{low:.{digits}f} to {high:.{digits}f}"


def round_share(value: float) -> str:
    """A probability as text: two digits, `< 0.001` below that."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def _count_digits(name: str, half_width: float) -> int:
    """Digits after the point that mean something beside half of an interval."""
    digits = max(0, 1 - math.floor(math.log10(half_width)))
    if METRICS.get(name) is not None and METRICS[name].unit == "%":
        digits = min(digits, _PERCENT_DIGITS + 1)
    return digits


def round_difference(name: str, value: float) -> str:
    """A difference of two values of a metric with its sign: `+1.3`, `-0.0041`."""
    text = _round_alone(name, abs(value))
    return text if not text.strip("0.") else f"{'+' if value > 0 else '-'}{text}"


def _round_alone(name: str, value: float) -> str:
    metric = METRICS.get(name)
    if metric is not None and metric.unit == "%":
        return f"{value:.{_PERCENT_DIGITS}f}"
    if value != 0 and not _SMALL <= abs(value) < _LARGE:
        return f"{value:.{_SIGNIFICANT}g}"
    if float(value).is_integer():
        return f"{value:.0f}"
    digits = _SIGNIFICANT - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits)}f}"
