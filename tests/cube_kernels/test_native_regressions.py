"""Faults of the native backend, or of the reference beside it, that were found and must not come back."""

import math
from dataclasses import replace

import pytest
import torch

from cube_kernels import Alive, Lattice, Rule, RuleParameters, rollout
from cube_kernels.backends import native


def zeros(lattice: Lattice, dtype: torch.dtype = torch.float32) -> RuleParameters:
    """Parameters of `STILL`: it adds nothing."""
    inputs = len(lattice.neighbors) * lattice.channels
    shapes = (1, inputs), (1,), (lattice.channels, 1), (lattice.channels,)
    return RuleParameters(None, *(torch.zeros(shape, dtype=dtype) for shape in shapes))


STILL = Rule(perception="gather", own_state=False, hidden=1)
NEVER = Rule(perception="gather", own_state=False, hidden=1, fire_rate=0.0)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_step_without_change_keeps_every_half_number_and_its_sign(dtype, backend):
    """Minus zero became zero in float16."""
    lattice = Lattice((1, 1, 2), 1)
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    x = bits.view(dtype)
    x = torch.where(x.isfinite(), x, 0).view(-1, 1, 1, 2, 1)
    y = rollout(x, zeros(lattice, dtype), lattice, NEVER, steps=1, seed=0, backend=backend)
    assert torch.equal(y.view(torch.int16), x.view(torch.int16))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_a_lattice_recovers_from_a_nan_in_a_cell_that_dies(channels, backend):
    """The padding of the dead cell's channels stayed NaN and reached its neighbors through the hidden layer."""
    lattice = Lattice((1, 1, 4), channels, ((0, 0, 0), (0, 0, 1)))
    rule = Rule(filters=1, hidden=3, alive=Alive(0, -1.0, "both", dead_value=-2.0))
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 2, channels), (3, 2 * channels), (3,), (channels, 3), (channels,)
    parameters = RuleParameters(*(0.1 * torch.randn(shape, generator=generator) for shape in shapes))
    x = torch.zeros(1, 1, 1, 4, channels)
    x[0, 0, 0, 3] = math.nan  # it has no other neighbor, so it does not live
    y = rollout(x, parameters, lattice, rule, steps=3, backend=backend)
    assert y[0, 0, 0, 2:].eq(-2).all()  # the cell and the one that saw it
    assert y[0, 0, 0, :2].abs().lt(1).all()


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_cell_lives_by_any_neighbor_above_the_threshold_even_beside_a_nan(backend):
    """The reference took a NaN for the largest value."""
    lattice = Lattice((1, 1, 3), 1, ((0, 0, 0), (0, 0, -1), (0, 0, 1)))
    rule = replace(NEVER, alive=Alive(0, 0.5, "both", -1.0))
    x = torch.tensor([math.nan, 0.0, 1.0]).view(1, 1, 1, 3, 1)
    y = rollout(x, zeros(lattice), lattice, rule, steps=1, seed=0, backend=backend)
    assert y.flatten().tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_sample_with_a_nan_has_not_converged(backend):
    """The reference stopped it after one step."""
    lattice = Lattice((1, 1, 2), 1)
    x = torch.tensor([[math.nan, 1.0], [2.0, 1.0]]).view(2, 1, 1, 2, 1)
    result = rollout(x, zeros(lattice), lattice, STILL, steps=4, tolerance=0.1, backend=backend)
    assert result.steps.tolist() == [4, 1]


def test_openmp_is_found_in_a_folder_with_a_space():
    """What followed the last space was taken for the path, and a deleted file was opened."""
    maps = """\
7f00-7f01 r--p 00000000 08:01 11                         /home/a user/my env/torch/lib/libgomp-a34b3233.so.1
7f01-7f02 r-xp 00001000 08:01 11                         /home/a user/my env/torch/lib/libgomp-a34b3233.so.1
7f02-7f03 r--p 00000000 08:01 12                         /usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0
7f03-7f04 r--p 00000000 08:01 13                         /opt/intel/libiomp5.so
7f04-7f05 r--p 00000000 08:01 14                         /opt/old/libomp.so (deleted)
7f05-7f06 r--p 00000000 08:01 15                         /opt/libomp/lib/libcompute.so
7f06-7f07 r--p 00000000 08:01 16                         /opt/libompx.so
7f07-7f08 rw-p 00000000 00:00 0
7f08-7f09 rw-p 00000000 00:00 0                          [heap]
"""
    assert native._openmp_runtimes(maps) == {
        "/home/a user/my env/torch/lib/libgomp-a34b3233.so.1",
        "/usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0",
        "/opt/intel/libiomp5.so",
    }
