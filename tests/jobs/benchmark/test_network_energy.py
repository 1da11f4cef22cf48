"""What `spikeseg benchmark energy` says of a network is the sum of what its layers were counted."""

import pytest
from click.testing import CliRunner

from spikeseg.jobs.benchmark.network_energy import command, measure_network
from spikeseg.platform.config.errors import ConfigError


def test_kinds_sum_to_the_paper_s_rule_and_a_network_fires() -> None:
    report = measure_network("shapes_tiny", side=32, images=2)
    kinds = report["kinds"]
    total = sum(sums["mj"] for sums in kinds.values())
    assert total == pytest.approx(report["mj"]["paper"], rel=1e-9)
    spikes = kinds["convolution, spikes"]
    assert 0 < spikes["values"] <= spikes["unary"]
    # A slot is an operation at most: D = 4 of them for each product.
    assert spikes["unary"] < 4 * spikes["macs"]
    assert kinds["convolution, real"]["unary"] == 0


def test_more_levels_cost_more_accumulates_of_equal_products() -> None:
    few, many = (
        measure_network("shapes_tiny", [f"model.neuron.levels={levels}"], side=32, images=2)
        for levels in (1, 4)
    )
    name = "convolution, spikes"
    assert few["kinds"][name]["macs"] == many["kinds"][name]["macs"]
    assert few["kinds"][name]["unary"] < many["kinds"][name]["unary"]
    assert few["mj"]["paper"] < many["mj"]["paper"]


def test_the_command_prints_every_kind_and_rule() -> None:
    done = CliRunner().invoke(command, ["shapes_tiny", "--side", "32", "--images", "2"])
    assert done.exit_code == 0, done.output
    assert "shapes_tiny, T1 D4, weights drawn, 2 images of 32 x 32" in done.output
    for word in ("mask_product, spikes", "paper_layers", "quantised", "memory", "MB at most"):
        assert word in done.output
    assert max(map(len, done.output.splitlines())) < 100


def test_an_unknown_recipe_is_named() -> None:
    with pytest.raises(ConfigError, match="shapes_tinny"):
        measure_network("shapes_tinny")
