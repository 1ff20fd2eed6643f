"""Truths that need no other implementation: faces, adjoints, life, heat."""

import numpy as np
import pytest
import torch

from cube_kernels import BackendError, CubeLayer, Lattice, Rule, perceive
from cube_kernels.backends import triton
from cube_kernels.backends.triton import geometry
from cube_kernels.backends.triton.plan import names
from cube_kernels.lattice import BOUNDARIES
from cube_kernels.philox import fires
from cube_kernels.rules import heat, life
from tests.conformance.properties import check_step_size
from tests.cube_kernels.test_rules import generations, heat_modes, numpy_life
from tests.cube_kernels.test_truths import check_faces, check_transposes
from tests.triton.addresses import check_the_last_rows


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("distance", [1, 2])
def test_each_face_reads_what_its_boundary_says(boundary, distance):
    for axis in range(3):
        check_faces(boundary, axis, distance, torch.float32, "triton")


THIN = [((1, 1, 1), (4, -7, 9)), ((1, 2, 3), (0, 5, -8)), ((2, 1, 4), (-3, 2, 11))]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("shape", "offset"), THIN, ids=str)
def test_offsets_may_reach_far_beyond_a_thin_lattice(boundary, shape, offset):
    if boundary == "reflecting":  # undefined across one cell
        offset = tuple(0 if n == 1 else o for n, o in zip(shape, offset, strict=True))
    offsets = tuple(dict.fromkeys([offset, (1, 0, 0) if shape[0] > 1 else (0, 0, 0)]))
    lattice = Lattice(shape, 2, offsets, boundary=boundary)
    x, filters = torch.randn(2, *shape, 2), torch.randn(1, len(offsets), 2)
    results = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        tensors = [t.to(dtype, copy=True).requires_grad_() for t in (x, filters)]
        seen = perceive(tensors[0], lattice, tensors[1], backend=backend)
        results.append((seen, *torch.autograd.grad((seen * seen).sum(), tensors)))
    for actual, truth in zip(*results, strict=True):
        torch.testing.assert_close(actual.double(), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("filters", [None, 2])
def test_perception_its_adjoint_and_its_filter_gradient_agree(boundary, filters):
    lattice = Lattice((3, 2, 7), 3, ((1, -1, 2), (0, 0, 0), (0, 3, 0), (-2, 1, -1)), boundary=boundary)
    check_transposes(lattice, filters, torch.float32, "triton", 1e-4)


def test_a_boundary_that_the_kernels_lack_is_refused(monkeypatch):
    monkeypatch.setitem(BOUNDARIES, "inner", lambda index, size: min(max(index, 1), size - 2))
    lattice, rule = Lattice((3, 4, 5), 2, boundary="inner"), Rule(hidden=3)
    x = torch.randn(1, *lattice.state_shape)
    message = "it knows no boundary 'inner'; valid: 'walls', 'periodic'"
    with pytest.raises(BackendError, match=message):
        perceive(x, lattice, backend="triton")
    with pytest.raises(BackendError, match=message):
        CubeLayer(lattice, rule, 1, backend="triton")(x)


def test_nor_do_the_kernels_take_it_for_another(monkeypatch):
    monkeypatch.setitem(BOUNDARIES, "outer", BOUNDARIES["walls"])
    monkeypatch.setitem(names, "boundary", ("outer",))
    lattice = Lattice((3, 4, 5), 2, boundary="outer")
    with pytest.raises(NotImplementedError, match="no boundary 'outer'"):
        perceive(torch.randn(1, *lattice.state_shape), lattice, backend="triton")


def test_nor_in_the_adjoint(monkeypatch):
    """Where the way there is told and the way back is not."""
    monkeypatch.setitem(BOUNDARIES, "outer", BOUNDARIES["walls"])
    monkeypatch.setattr(geometry, "_normal", lambda shift, size, boundary: shift)
    lattice = Lattice((3, 4, 5), 2, boundary="outer")
    with pytest.raises(NotImplementedError, match="no adjoint of boundary 'outer'"):
        triton.perceive_adjoint(torch.randn(1, *lattice.shape, 12), lattice, None)


def test_any_update_that_takes_a_step_size_is_scaled():
    check_step_size("triton")


def test_perception_is_differentiable_twice():
    lattice = Lattice((2, 2, 3), 2, boundary="reflecting")
    x, filters = torch.randn(1, *lattice.state_shape), torch.randn(2, 7, 2)
    seconds = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        tensors = [t.to(dtype, copy=True).requires_grad_() for t in (x, filters)]
        seen = perceive(tensors[0], lattice, tensors[1], backend=backend)
        first = torch.autograd.grad((seen**3).sum(), tensors, create_graph=True)
        seconds.append(torch.autograd.grad(sum((g**2).sum() for g in first), tensors))
    for actual, truth in zip(*seconds, strict=True):
        torch.testing.assert_close(actual.double(), truth, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("shape", "rule", "born", "survive"),
    [((1, 6, 7), "B3/S23", {3}, {2, 3}), ((3, 4, 4), "B6/S567", {6}, {5, 6, 7})],
    ids=["plane", "space"],
)
def test_life_is_exact(dtype, shape, rule, born, survive):
    cells = (np.random.default_rng(5).random(shape) < 0.35).astype(int)
    for state in generations(cells, life(shape, rule, "periodic"), dtype, "triton", steps=3):
        cells = numpy_life(cells, born, survive, "periodic")
        assert np.array_equal(state, cells)


@pytest.mark.parametrize("boundary", ["walls", "periodic", "replicate", "reflecting"])
def test_heat_eigenmodes_decay_as_the_closed_form_says(boundary):
    shape, modes, steps, diffusivity, time_step = (2, 5, 3), [(1, 2, 1), (0, 0, 0), (1, 4, 2)], 8, 0.5, 0.3
    layer = heat(shape, diffusivity, time_step, channels=len(modes), boundary=boundary)
    layer.backend = "triton"
    x, factors = heat_modes(boundary, shape, modes, diffusivity * time_step)
    assert (layer(x.float(), steps=steps) - x * factors**steps).abs().max() < 1e-6


@pytest.mark.parametrize("seed", [9, 2**40 + 7, 2**63 - 1])
def test_the_fire_mask_is_the_one_that_every_backend_draws(seed):
    lattice = Lattice((3, 4, 5), 2)
    layer = CubeLayer(lattice, Rule(hidden=8, fire_rate=0.4), 1, backend="triton")
    torch.nn.init.normal_(layer.head_weight)
    x = torch.randn(2, *lattice.state_shape)
    changed = (layer(x, seed=seed) != x).any(-1).flatten(1)
    assert torch.equal(changed, fires(torch.arange(60), 2, 0, seed, 0.4))


def test_rows_are_counted_in_64_bits():
    check_the_last_rows()
