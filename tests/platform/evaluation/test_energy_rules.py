"""Tables of picojoules: the shipped ones, a user's own, and what is refused."""

from pathlib import Path

import pytest

from spikeseg.model.accounting.energy import PAPER_RULE, EnergyRule, price_layers
from spikeseg.model.accounting.operations import LayerOperations
from spikeseg.platform.config.errors import ConfigError
from spikeseg.platform.evaluation.energy_rules import KINDS, load_rules, rule_names

OWN = """\
source: my chip
mac: 2
graded: 1.5
accumulate: 0.5
accumulate_bit: 0.75
activation: 3
leave_out: [neuron]
"""


def layer(kind: str = "convolution", operands: int = 1, **changes: float) -> LayerOperations:
    numbers = {"macs": 1000.0, "values": 200.0, "unary": 300.0, "bitwise": 250.0, "rate": 0.5}
    numbers |= {"inputs": 40.0, "outputs": 60.0, **changes}
    return LayerOperations(
        **{"name": "layer", "kind": kind, "operands": operands, "levels": 4, "weights": 9},
        **{"other_rate": 0.0, **numbers},  # pyright: ignore[reportArgumentType]
    )


def test_shipped_rules_have_sources_and_one_is_the_papers() -> None:
    rules = {rule.name: rule for rule in load_rules("all")}
    assert list(rules) == rule_names() == ["memory", "paper", "paper_layers", "quantised"]
    assert all(len(rule.source) > 20 for rule in rules.values())
    constants = ("mac", "accumulate", "graded", "accumulate_bit", "leave_out")
    for name in constants:
        assert getattr(rules["paper"], name) == getattr(PAPER_RULE, name)
    assert set(rules["paper_layers"].leave_out) == set(KINDS) - {"convolution", "linear"}


def test_a_rule_of_ones_own_charges_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text(OWN)
    (rule,) = load_rules(str(path))
    assert rule == EnergyRule(
        "chip", "my chip", 2.0, 0.5, 1.5, 0.75, activation=3.0, leave_out=("neuron",)
    )
    rows = [layer(), layer(operands=0), layer("neuron", 0)]
    dense = 2 * 1000 + 3 * (40 + 60)
    for form, price, count in (
        ("unrolled", 0.5, 300),
        ("graded", 1.5, 200),
        ("bitwise", 0.75, 250),
    ):
        # As many messages of an input as operations, where a slot each would be 300.
        spiking = price * count + 3 * (40 * 0.5 * count / 300 + 60)
        report = price_layers(rows, rule, form)  # pyright: ignore[reportArgumentType]
        assert [row.mj for row in report.rows] == pytest.approx([1e-9 * spiking, 1e-9 * dense])
        assert [row.multiplies for row in report.rows] == [form == "graded", True]
        assert "rule chip" in report.rule and "my chip" in report.rule and form in report.rule


def test_products_of_a_quantised_network_grow_with_its_bits() -> None:
    (rule,) = load_rules("quantised")
    assert rule.price_graded(15) - rule.price_graded(1) == pytest.approx(3 * rule.graded_bit)
    # Four slots at most, each an addition, against one product of three bits.
    assert rule.break_even(4) == pytest.approx((0.1 + 3 * 0.025) / (4 * 0.1))
    memory, paper = load_rules("memory")[0], load_rules("paper")[0]
    assert memory.break_even(4) < rule.break_even(4) < paper.break_even(4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "must be a table of picojoules, got list"),
        (OWN.replace("mac: 2", "macs: 2"), "chip.yaml:2: macs: is no field of a rule"),
        (OWN.replace("mac: 2\n", ""), "must give mac"),
        (OWN.replace("mac: 2", "mac: -2"), "chip.yaml:2: mac: must be picojoules, a finite number"),
        (OWN.replace("mac: 2", "mac: .nan"), "mac: must be picojoules"),
        (OWN.replace("mac: 2", "mac: true"), "mac: must be picojoules"),
        (OWN.replace("[neuron]", "[neurons]"), "chip.yaml:7: leave_out: must be a list of"),
        (OWN.replace("my chip", "''"), "source: must say where the numbers come from"),
    ],
    ids=["list", "name", "missing", "negative", "nan", "bool", "kind", "source"],
)
def test_a_wrong_table_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as raised:
        load_rules(str(path))
    assert message in str(raised.value)


def test_an_operation_may_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text(OWN.replace("mac: 2", "mac: 0"))
    assert load_rules(str(path))[0].mac == 0.0


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"got 'papers'.*memory, paper, paper_layers, quantised"):
        load_rules("papers")
