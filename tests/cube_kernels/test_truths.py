"""Truths that need no other implementation: heat, life, adjoints."""

import math

import numpy as np
import pytest
import torch

from cube_kernels import Lattice, Rule, RuleParameters, bind, perceive, rollout

BACKENDS = ["native", "reference"]


def linear_rule(channels: int, update: str, step_size: float = 1.0):
    """A rule whose hidden relus carry p and -p, so that the change is p itself."""
    rule = Rule(
        own_state=False, hidden=2 * channels, activation="relu", update=update, squash="identity", step_size=step_size
    )
    eye = torch.eye(channels, dtype=torch.float64)
    zeros = torch.zeros(2 * channels, dtype=torch.float64)
    parameters = {
        "hidden_weight": torch.cat([eye, -eye]),
        "hidden_bias": zeros,
        "head_weight": torch.cat([eye, -eye], dim=1),
        "head_bias": zeros[:channels],
    }
    return rule, parameters


def eigenmode(boundary: str, size: int, k: int):
    """An eigenvector of the second difference under a boundary, and its eigenvalue."""
    i = torch.arange(size, dtype=torch.float64)
    if boundary == "periodic":
        return torch.cos(2 * math.pi * k * i / size), 2 * math.cos(2 * math.pi * k / size) - 2
    if boundary == "replicate":  # zero flux
        return torch.cos(math.pi * k * (i + 0.5) / size), 2 * math.cos(math.pi * k / size) - 2
    return torch.sin(math.pi * k * (i + 1) / (size + 1)), 2 * math.cos(math.pi * k / (size + 1)) - 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("boundary", ["walls", "periodic", "replicate"])
@pytest.mark.parametrize("modes", [(1, 1, 1), (2, 1, 3), (1, 3, 2)])
def test_heat_eigenmodes_decay_as_the_closed_form_says(backend, boundary, modes):
    """x ← x + dt·Δx multiplies an eigenmode by (1 + dt·λ) at each step: to 1e-12 in float64."""
    shape, steps, dt = (4, 5, 7), 20, 0.1
    vectors, values = zip(*(eigenmode(boundary, n, k) for n, k in zip(shape, modes, strict=True)), strict=True)
    mode = torch.einsum("d,h,w->dhw", *vectors)[None, ..., None]
    lattice = Lattice(shape, 1, boundary=boundary)
    laplacian = torch.ones(1, 7, 1, dtype=torch.float64)
    laplacian[0, 0] = -6.0  # offsets begin with the cell itself
    rule, parameters = linear_rule(1, "residual", dt)
    result = rollout(mode, RuleParameters(laplacian, **parameters), lattice, rule, steps=steps, backend=backend)
    assert (result - (1 + dt * sum(values)) ** steps * mode).abs().max() < 1e-12


def life_step(cells: np.ndarray, born: set[int], survive: set[int], mode: str) -> np.ndarray:
    padded = np.pad(cells, 1, mode=mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3))
    neighbors = windows.sum(axis=(3, 4, 5)) - cells
    return np.where(cells == 1, np.isin(neighbors, list(survive)), np.isin(neighbors, list(born))).astype(int)


def life_rule(born: set[int], survive: set[int], most: int, dtype: torch.dtype):
    """Outer-totalistic life as one step of relus: with q = 2·neighbors + own state, each q that lives is the
    triangle relu(q - v + 1) - 2·relu(q - v) + relu(q - v - 1) around v. All numbers are small integers."""
    living = [2 * n for n in born] + [2 * n + 1 for n in survive]
    bias = torch.tensor([float(s - v) for v in living for s in (1, 0, -1)], dtype=dtype)
    head = torch.tensor([[1.0, -2.0, 1.0] * len(living)], dtype=dtype)
    rule = Rule(own_state=False, hidden=len(bias), activation="relu", update="replace", squash="identity")
    filters = torch.full((1, most + 1, 1), 2.0, dtype=dtype)
    filters[0, 0] = 1.0
    parameters = RuleParameters(filters, torch.ones(len(bias), 1, dtype=dtype), bias, head, torch.zeros(1, dtype=dtype))
    return rule, parameters


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("shape", "boundary", "born", "survive"),
    [
        ((1, 16, 15), "walls", {3}, {2, 3}),
        ((1, 14, 17), "walls", {3, 6}, {2, 3}),
        ((8, 7, 9), "periodic", {6}, {5, 6, 7}),
        ((7, 8, 6), "periodic", {5}, {4, 5}),
    ],
    ids=["life 2D", "highlife 2D", "5766 3D", "4555 3D"],
)
def test_life_is_exact(backend, dtype, shape, boundary, born, survive):
    """Ten generations of life-like automata equal numpy's, bit for bit. A plane between walls is 2D."""
    cells = (np.random.default_rng(3).random(shape) < 0.25).astype(int)
    rule, parameters = life_rule(born, survive, 26, dtype)
    state = torch.tensor(cells, dtype=dtype)[None, ..., None]
    lattice = Lattice(shape, 1, "moore", boundary=boundary)
    result = rollout(state, parameters, lattice, rule, steps=10, backend=backend)
    for _ in range(10):
        cells = life_step(cells, born, survive, {"walls": "constant", "periodic": "wrap"}[boundary])
    assert torch.equal(result[0, ..., 0], torch.tensor(cells, dtype=dtype))
    assert 0 < cells.sum() < cells.size, "the pattern died or filled the lattice: little was tested"


@pytest.mark.parametrize("boundary", ["walls", "periodic", "replicate"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_face_reads_what_its_boundary_says(boundary, axis, backend):
    """Shifting by one cell along each axis in each direction equals numpy's padded slice: all six faces."""
    shape = (3, 4, 5)
    x = torch.randn(1, *shape, 1, dtype=torch.float64)
    mode = {"walls": "constant", "periodic": "wrap", "replicate": "edge"}[boundary]
    lattice = Lattice(shape, 1, boundary=boundary)
    rule, parameters = linear_rule(1, "replace")
    for direction in (-1, 1):
        offset = tuple(direction if a == axis else 0 for a in range(3))
        shift = torch.zeros(1, 7, 1, dtype=torch.float64)
        shift[0, lattice.offsets.index(offset)] = 1.0
        padded = np.pad(x[0, ..., 0].numpy(), 1, mode=mode)
        expected = padded[tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, shape, strict=True))]
        result = rollout(x, RuleParameters(shift, **parameters), lattice, rule, steps=1, backend=backend)
        assert np.array_equal(result[0, ..., 0].numpy(), expected)


@pytest.mark.parametrize("boundary", ["walls", "periodic", "replicate"])
def test_perception_and_its_adjoint_agree(boundary):
    """⟨P x, y⟩ = ⟨x, Pᵀ y⟩ for the adjoint that autograd derives."""
    lattice = Lattice((3, 2, 4), 3, "moore", boundary=boundary)
    x = torch.randn(2, 3, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    filters = torch.randn(2, 27, 3, dtype=torch.float64)
    seen = perceive(x, lattice, filters)
    y = torch.randn_like(seen)
    (adjoint,) = torch.autograd.grad(seen, x, y)
    assert torch.allclose((seen * y).sum(), (x * adjoint).sum(), rtol=1e-13)


def test_the_classic_cell_has_1240_parameters():
    """6 neighbors × 8 states + own 8 + external 12 → 16 tanh → 8 tanh."""
    rule = Rule(perception="gather", drive=12, hidden=16, activation="tanh", update="replace")
    shapes = bind(Lattice((4, 4, 4), 8), rule).parameter_shapes
    assert sum(math.prod(shape) for shape in shapes.values()) == 1240
