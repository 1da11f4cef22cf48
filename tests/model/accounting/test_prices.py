"""What a rule charges for a layer, computed by hand from prices that are all different."""

import dataclasses

import pytest

from spikeseg.model.accounting.energy import (
    EnergyRule,
    price_earlier,
    price_layers,
    share_by_stage,
)
from spikeseg.model.accounting.operations import LayerOperations

RULE = EnergyRule(
    name="primes",
    source="by hand",
    mac=2.0,
    accumulate=5.0,
    graded=3.0,
    accumulate_bit=7.0,
    graded_bit=0.5,
    update=11.0,
    weight_read=13.0,
    input_read=17.0,
    potential_access=19.0,
    activation=23.0,
)
SPIKES = LayerOperations(
    name="backbone.stages.0.conv",
    kind="convolution",
    macs=100.0,
    operands=1,
    levels=4,
    rate=0.5,
    other_rate=0.0,
    values=30.0,
    unary=40.0,
    bitwise=36.0,
    weights=9,
    inputs=50.0,
    outputs=20.0,
)
REAL = dataclasses.replace(
    SPIKES,
    name="backbone.stages.1.conv",
    operands=0,
    levels=0,
    rate=0.0,
    values=0.0,
    unary=0.0,
    bitwise=0.0,
)
PICO = 1e-9
"""Millijoule of a picojoule."""


@pytest.mark.parametrize(
    ("form", "arithmetic", "operations", "messages"),
    [
        ("unrolled", 40 * 5.0, 40, 25.0),
        # Four levels take three bits.
        ("graded", 30 * (3.0 + 3 * 0.5), 30, 25.0 * 30 / 40),
        ("bitwise", 36 * 7.0, 36, 25.0 * 36 / 40),
    ],
)
def test_spikes_cost_their_operations_weights_potentials_and_messages(
    form: str, arithmetic: float, operations: int, messages: float
) -> None:
    expected = arithmetic + operations * (13.0 + 19.0) + (messages + 20) * 23.0
    report = price_layers([SPIKES], RULE, form)  # pyright: ignore[reportArgumentType]
    assert report.total_mj == pytest.approx(expected * PICO, rel=1e-12)
    (row,) = report.rows
    assert row.operations == operations and row.spiking_input
    assert row.multiplies is (form == "graded")


@pytest.mark.parametrize("form", ["unrolled", "graded", "bitwise"])
def test_real_products_cost_the_same_in_every_form(form: str) -> None:
    expected = 100 * 2.0 + 100 * (13.0 + 17.0) + (50 + 20) * 23.0
    report = price_layers([REAL], RULE, form)  # pyright: ignore[reportArgumentType]
    assert report.total_mj == pytest.approx(expected * PICO, rel=1e-12)
    assert report.rows[0].multiplies and not report.rows[0].spiking_input


@pytest.mark.parametrize(
    ("kind", "price", "multiplies"),
    [("neuron", 11.0, False), ("addition", 5.0, False), ("interpolation", 2.0, True)],
)
def test_what_is_no_matrix_product_moves_nothing(kind: str, price: float, multiplies: bool) -> None:
    report = price_layers([dataclasses.replace(REAL, kind=kind)], RULE)
    assert report.total_mj == pytest.approx(100 * price * PICO, rel=1e-12)
    assert report.rows[0].multiplies is multiplies
    free = dataclasses.replace(RULE, leave_out=(kind,))
    assert price_layers([dataclasses.replace(REAL, kind=kind)], free).total_mj == 0


def test_the_table_holds_every_layer_and_says_which_read_spikes() -> None:
    addition = dataclasses.replace(REAL, name="neck.add", kind="addition")
    rule = dataclasses.replace(RULE, leave_out=("addition",))
    table = price_layers([SPIKES, REAL, addition], rule).tabulate()
    assert [row["spiking_input"] for row in table] == [True, False, False]
    assert [row["mj"] > 0 for row in table] == [True, True, False]
    assert table[2]["operations"] == 0.0 and table[2]["macs"] == 100.0


def test_shares_are_those_of_the_first_two_parts_of_a_name() -> None:
    head = dataclasses.replace(SPIKES, name="head.mask.conv")
    rows = price_layers([SPIKES, REAL, head], RULE).rows
    shares = share_by_stage(rows)
    assert list(shares) == ["backbone.stages", "head.mask"]
    assert shares["backbone.stages"] == pytest.approx(rows[0].mj + rows[1].mj)
    assert shares["head.mask"] == rows[2].mj


def test_the_earlier_rule_charges_macs_by_rate_of_convolutions_and_linear_layers() -> None:
    attention = dataclasses.replace(SPIKES, kind="attention")
    expected = 100 * 0.9 * 0.5 + 100 * 4.6
    assert price_earlier([SPIKES, REAL, attention]) == pytest.approx(expected * PICO, rel=1e-12)


def test_break_even_is_where_slots_cost_what_products_of_all_values_do() -> None:
    # A product 3 + 3 bits, a weight, an input; a slot 5, a weight and a potential, four of them.
    assert RULE.break_even(4) == pytest.approx((4.5 + 13 + 17) / (4 * (5 + 13 + 19)), rel=1e-12)
