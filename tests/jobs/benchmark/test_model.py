"""The network's benchmark refuses what it cannot measure before any work."""

import pytest
from click.testing import CliRunner

from spikeseg.jobs.benchmark.model import command


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("size", 15, 16), ("size", -1, 16), ("batch", 0, 1), ("rounds", -2, 1), ("threads", 0, 1)],
)
def test_a_number_below_its_range_is_refused(option: str, value: int, least: int) -> None:
    ran = CliRunner().invoke(command, [f"--{option}", str(value)])
    assert ran.exit_code == 2
    assert f"'--{option}': {value} is not in the range x>={least}" in ran.output


@pytest.mark.slow
def test_a_profile_names_the_operations_of_each_form() -> None:
    words = ["--profile", "--kind", "forward", "--form", "folded", "--size", "32", "--batch", "1"]
    ran = CliRunner().invoke(command, [*words, "--precision", "fp32"], catch_exceptions=False)
    plain, folded = ran.output.split("forward, fp32, batch 1, 32 x 32, ")[1:]
    assert plain.startswith("plain: ") and folded.startswith("folded: ")
    assert "aten::mkldnn_convolution" in plain and "aten::native_batch_norm" in plain
    assert "aten::native_batch_norm" not in folded
