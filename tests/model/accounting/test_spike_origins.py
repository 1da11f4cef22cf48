"""Which tensors are spikes follows their memory, until something is written over them."""

import torch

from spikeseg.model.accounting.spike_origins import Origins, Spikes

FOUR = Spikes(0.25, 4)


def test_every_view_of_spikes_is_spikes() -> None:
    origins, x = Origins(), torch.rand(2, 3)
    origins.depend(x, FOUR)
    assert origins.find_spikes(x.T[1:]) == FOUR
    assert origins.find_spikes(x.clone()) is None
    assert not origins.depends(x.clone())


def test_what_is_written_over_is_no_spikes_any_more_but_depends_on_the_image() -> None:
    origins, x, constant, other = Origins(), torch.rand(3), torch.ones(3), torch.ones(3)
    origins.depend(x, FOUR)
    origins.overwrite(constant, (x,))
    assert origins.depends(constant) and origins.find_spikes(constant) is None
    origins.overwrite(x, (2.0,))
    assert origins.depends(x) and origins.find_spikes(x) is None
    origins.overwrite(other, (torch.ones(3), 1.0))
    assert not origins.depends(other), "constants into a constant"


def test_moves_keep_what_all_inputs_are_and_functions_do_not() -> None:
    origins, spikes, real = Origins(), torch.rand(3), torch.rand(3)
    origins.depend(spikes, FOUR)
    origins.depend(real)
    both, same, mixed = torch.rand(6), torch.rand(6), torch.rand(3)
    origins.move(same, ([spikes, spikes],))
    origins.move(both, ([spikes, real],))
    origins.derive(mixed, (spikes, 2.0))
    assert origins.find_spikes(same) == FOUR
    assert origins.depends(both) and origins.find_spikes(both) is None
    assert origins.depends(mixed) and origins.find_spikes(mixed) is None


def test_nothing_is_known_after_a_pass() -> None:
    origins, x = Origins(), torch.rand(3)
    origins.depend(x, FOUR)
    origins.clear()
    assert not origins.depends(x)
