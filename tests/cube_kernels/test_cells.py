"""Composed cells against their formulas written out on torch's own convolutions and in numpy."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from cube_kernels import Lattice
from cube_kernels.cells import Cell, GMLPCell, GRUCell

BACKENDS = ["native", "reference"]
BOUNDARIES = ["walls", "periodic", "replicate", "reflecting", "absorbing"]
PADDING = {"walls": "constant", "absorbing": "constant", "periodic": "circular", "replicate": "replicate"}
BUILD = {
    "gmlp": lambda lattice, **options: GMLPCell(lattice, hidden=5, **options),
    "gru": lambda lattice, **options: GRUCell(lattice, filters=2, **options),
}
cells = pytest.mark.parametrize("build", BUILD.values(), ids=BUILD)


def drawn(cell: torch.nn.Module) -> torch.nn.Module:
    """A cell of arbitrary float64 parameters, so that none is at a special value such as zero."""
    for parameter in cell.double().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return cell


def convolved(x: torch.Tensor, filters: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """Perception by a dense grouped convolution of the padded state: ``[B, D, H, W, P·C]``."""
    bank, _, channels = filters.shape
    kernel = torch.zeros(channels, bank, 3, 3, 3, dtype=x.dtype)
    for index, (d, h, w) in enumerate(lattice.offsets):
        kernel[:, :, d + 1, h + 1, w + 1] = filters[:, index].T
    padded = F.pad(x.movedim(-1, 1), (1,) * 6, mode=PADDING.get(lattice.boundary, "reflect"))
    seen = F.conv3d(padded, kernel.flatten(0, 1)[:, None], groups=channels)  # channels of a filter apart
    return seen.unflatten(1, (channels, bank)).permute(0, 3, 4, 5, 2, 1).flatten(-2)


def sponge(lattice: Lattice) -> torch.Tensor:
    """The absorbing boundary's factor of each cell, ``[D, H, W, 1]``; 1 for every other boundary."""
    eta = torch.ones(*lattice.shape, 1, dtype=torch.float64)
    if lattice.boundary == "absorbing":
        for cell in np.ndindex(lattice.shape):
            for i, size in zip(cell, lattice.shape, strict=True):
                eta[cell] *= np.exp(-((0.5 * max(0, 4 - min(i, size - 1 - i)) / 4) ** 2))
    return eta


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("neighborhood", ["von_neumann", "moore"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gmlp_is_its_formula(backend, neighborhood, boundary):
    lattice = Lattice((3, 4, 5), 4, neighborhood, boundary=boundary)
    cell = drawn(GMLPCell(lattice, hidden=6, backend=backend))
    x = torch.randn(2, 3, 4, 5, 4, dtype=torch.float64)
    result = cell(x, steps=2)

    def normalized(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
        centered = x - x.mean(-1, keepdim=True)
        return centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias

    for _ in range(2):
        hidden = F.gelu(normalized(x, cell.norm) @ cell.project_in.weight.T + cell.project_in.bias, approximate="tanh")
        u, v = hidden[..., :6], hidden[..., 6:]
        gate = convolved(normalized(v, cell.gate_norm), cell.gate_filters, lattice) + cell.gate_bias
        x = sponge(lattice) * (x + (u * gate) @ cell.project_out.weight.T + cell.project_out.bias)
    assert torch.allclose(result, x, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("neighborhood", ["von_neumann", "moore"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gru_is_its_formula(backend, neighborhood, boundary):
    lattice = Lattice((3, 4, 5), 4, neighborhood, boundary=boundary)
    cell = drawn(GRUCell(lattice, filters=2, backend=backend))
    h = torch.randn(2, 3, 4, 5, 4, dtype=torch.float64)
    result = cell(h, steps=2)
    unit = cell.unit
    for _ in range(2):
        p = convolved(h, cell.filters, lattice)
        ir, iz, i_n = (p @ unit.weight_ih.T + unit.bias_ih).chunk(3, dim=-1)
        hr, hz, h_n = (h @ unit.weight_hh.T + unit.bias_hh).chunk(3, dim=-1)
        z = torch.sigmoid(iz + hz)
        h = sponge(lattice) * ((1 - z) * torch.tanh(i_n + torch.sigmoid(ir + hr) * h_n) + z * h)
    assert torch.allclose(result, h, rtol=0, atol=1e-12)


def test_a_new_gmlp_cell_is_a_plain_mlp():
    """The gate starts at one, give or take a thousandth: cells hardly see each other."""
    cell = GMLPCell(Lattice((3, 4, 5), 4), hidden=8)
    x = torch.randn(2, 3, 4, 5, 4)
    u = F.gelu(cell.project_in(cell.norm(x)), approximate="tanh")[..., :8]
    plain = x + cell.project_out(u)
    assert torch.allclose(cell(x), plain, rtol=0, atol=0.02)
    assert not torch.equal(cell(x), plain)


@cells
def test_a_step_reaches_one_cell_further(build):
    """After T steps a change has arrived at distance T, and nowhere beyond."""
    lattice = Lattice((1, 1, 9), 3)
    cell = drawn(build(lattice))
    x = torch.randn(1, 1, 1, 9, 3, dtype=torch.float64)
    other = x.clone()
    other[0, 0, 0, 2, 0] += 1
    for steps in range(4):
        moved = (cell(x, steps) != cell(other, steps)).any(-1).flatten()
        assert moved.tolist() == [abs(i - 2) <= steps for i in range(9)]


@cells
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_shapes_and_dtypes_stay(build, dtype):
    cell = build(Lattice((2, 3, 4), 4)).to(dtype)
    for batch in (3, 0):
        x = torch.randn(batch, 2, 3, 4, 4, dtype=dtype)
        result = cell(x, steps=2)
        assert result.shape == x.shape
        assert result.dtype is dtype
    exact = copy.deepcopy(cell).double()
    x = torch.rand(3, 2, 3, 4, 4, dtype=dtype)
    difference = (cell(x, steps=2) - exact(x.double(), steps=2)).abs().max()
    assert difference < 64 * torch.finfo(dtype).eps


@cells
def test_cells_run_under_autocast(build):
    """The parameters stay in float32; what comes in may be of either width."""
    cell = build(Lattice((2, 3, 4), 4))
    x = torch.rand(3, 2, 3, 4, 4)
    expected = cell(x, steps=2)
    with torch.autocast("cpu", torch.bfloat16):
        for given in (x, x.bfloat16()):
            result = cell(given, steps=2)
            assert (result - expected).abs().max() < 0.05
    result.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in cell.parameters())


def as_function(cell: torch.nn.Module, steps: int):
    names, parameters = zip(*cell.named_parameters(), strict=True)

    def function(x, *values):
        return functional_call(cell, dict(zip(names, values, strict=True)), (x, steps))

    x = torch.randn(2, *cell.lattice.shape, cell.lattice.channels, dtype=torch.float64, requires_grad=True)
    return function, (x, *(p.detach().requires_grad_() for p in parameters))


@cells
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gradcheck(build, backend, boundary):
    lattice = Lattice((2, 3, 2), 3, boundary=boundary)
    function, inputs = as_function(drawn(build(lattice, backend=backend)), steps=2)
    assert gradcheck(function, inputs, fast_mode=True)


@cells
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradgradcheck(build, backend):
    function, inputs = as_function(drawn(build(Lattice((1, 2, 2), 3), backend=backend)), steps=2)
    assert gradgradcheck(function, inputs, fast_mode=True)


def gradients(cell: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(cell(x, steps=5).square().sum(), list(cell.parameters()))


@cells
def test_checkpoints_keep_states_alone_and_change_no_gradient(build):
    lattice = Lattice((2, 3, 4), 3)
    torch.manual_seed(0)
    frugal = drawn(build(lattice))
    plain = build(lattice, checkpoint=False).double()
    plain.load_state_dict(frugal.state_dict())
    x = torch.randn(2, 2, 3, 4, 3, dtype=torch.float64)
    assert all(torch.equal(a, b) for a, b in zip(gradients(frugal, x), gradients(plain, x), strict=True))
    kept = {}
    for name, cell in (("frugal", frugal), ("plain", plain)):
        sizes: list[int] = []

        def note(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            cell(x, steps=5)
        kept[name] = sum(sizes)
    assert kept["frugal"] == 5 * x.numel()  # the state before each step
    assert kept["plain"] > 5 * kept["frugal"]


@cells
def test_cells_learn_to_carry_a_pattern_to_the_next_cell(build):
    """Random signs are to move on by one cell, around a ring. Without neighbors no loss below 1 is possible."""
    torch.manual_seed(0)
    cell = build(Lattice((1, 1, 6), 4, ((0, 0, -1), (0, 0, 0), (0, 0, 1)), boundary="periodic"), checkpoint=False)
    optimizer = torch.optim.Adam(cell.parameters(), lr=0.03)

    def loss(samples: int) -> torch.Tensor:
        signs = torch.randint(0, 2, (samples, 1, 1, 6, 1)) * 2.0 - 1
        state = torch.cat([signs, torch.zeros(samples, 1, 1, 6, 3)], dim=-1)
        return (cell(state, steps=2)[..., 0] - signs[..., 0].roll(1, dims=3)).square().mean()

    for _ in range(150):
        optimizer.zero_grad()
        loss(32).backward()
        optimizer.step()
    with torch.no_grad():
        assert loss(256) < 0.01


@cells
def test_the_state_dict_holds_all(build):
    lattice = Lattice((2, 3, 4), 4, boundary="absorbing")
    cell, other = drawn(build(lattice)), build(lattice).double()
    x = torch.randn(2, 2, 3, 4, 4, dtype=torch.float64)
    assert not torch.equal(cell(x), other(x))
    other.load_state_dict(cell.state_dict())
    assert torch.equal(cell(x), other(x))
    assert set(cell.state_dict()) == {name for name, _ in cell.named_parameters()}


@cells
@pytest.mark.parametrize(
    ("x", "steps", "error", "message"),
    [
        (torch.zeros(2, 2, 3, 4, 5), 1, ValueError, r"Cell: x has shape \[2, 2, 3, 4, 5\].*\[B, 2, 3, 4, 4\]"),
        (torch.zeros(2, 2, 3, 4, 4, dtype=torch.float64), 1, TypeError, "Cell: x is torch.float64.*torch.float32"),
        (torch.zeros(2, 2, 3, 4, 4, dtype=torch.int64), 1, TypeError, "Cell: x is torch.int64"),
        (torch.zeros(2, 2, 3, 4, 4), -1, ValueError, "Cell: steps is -1.*at least 0"),
        (torch.zeros(2, 2, 3, 4, 4), 1.5, TypeError, "Cell: steps is 1.5.*integer"),
    ],
)
def test_a_wrong_call_is_refused(build, x, steps, error, message):
    with pytest.raises(error, match=message):
        build(Lattice((2, 3, 4), 4))(x, steps)


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: GMLPCell(Lattice((2, 3, 4), 4), hidden=1), "GMLPCell: hidden is 1.*at least 2"),
        (lambda: GMLPCell(Lattice((2, 3, 4), 1), hidden=4), "GMLPCell: lattice.channels is 1.*at least 2"),
        (lambda: GRUCell(Lattice((2, 3, 4), 4), filters=0), "GRUCell: filters is 0.*at least 1"),
        (lambda: GRUCell(Lattice((2, 3, 4), 4), backend="fast"), "GRUCell: backend is 'fast'.*'auto', .*'reference'"),
    ],
)
def test_a_wrong_cell_is_refused(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


@cells
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_cells_after_a_linear_layer_run_under_autocast(build, dtype):
    lattice = Lattice((2, 3, 4), 4)
    before, cell, x = torch.nn.Linear(4, 4), build(lattice), torch.randn(2, *lattice.state_shape)
    with torch.autocast("cpu", dtype):
        y = cell(before(x), steps=2)
    torch.testing.assert_close(y.float(), cell(before(x), steps=2), rtol=0.05, atol=0.05)
    gradients = torch.autograd.grad(y.float().square().sum(), [*before.parameters(), *cell.parameters()])
    assert all(g.isfinite().all() and g.any() for g in gradients)


@cells
def test_autocast_does_not_let_float64_in(build):
    lattice = Lattice((2, 3, 4), 4)
    x = torch.randn(2, *lattice.state_shape, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"x is torch.float64, .* torch.float32"):
        build(lattice)(x)


@cells
def test_a_large_number_in_float16_stays_finite(build):
    """Its square is none."""
    lattice = Lattice((2, 3, 4), 4)
    cell, x = build(lattice), torch.randn(2, *lattice.state_shape)
    x[0, 0, 0, 0, 0] = 300
    expected = cell(x)
    torch.testing.assert_close(cell.half()(x.half()).float(), expected, rtol=0.01, atol=0.01)


@cells
@pytest.mark.parametrize("backend", BACKENDS)
def test_function_transforms_go_through_checkpoints(build, backend):
    lattice = Lattice((1, 2, 3), 3)
    cell, x = drawn(build(lattice, backend=backend)), torch.randn(2, *lattice.state_shape, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in cell.named_parameters()}

    def loss(parameters, x):
        return functional_call(cell, parameters, (x, 2)).square().sum()

    x.requires_grad_()
    expected = torch.autograd.grad(cell(x, 2).square().sum(), [*cell.parameters(), x])
    gradients, of_x = grad(loss, argnums=(0, 1))(parameters, x.detach())
    for actual, truth in zip([*gradients.values(), of_x], expected, strict=True):
        torch.testing.assert_close(actual, truth)
    each = vmap(grad(loss), (None, 0))(parameters, x.detach()[:, None])
    for actual, truth in zip(each.values(), expected, strict=False):
        torch.testing.assert_close(actual.sum(0), truth)
    jacobian = torch.autograd.functional.jacobian(lambda x: cell(x, 2), x.detach())
    torch.testing.assert_close(jacrev(lambda x: cell(x, 2))(x.detach()), jacobian)


@cells
def test_forward_derivatives_go_through_checkpoints(build):
    lattice = Lattice((1, 2, 3), 3)
    cell = drawn(build(lattice, backend="reference"))
    x, t = torch.randn(2, 1, *lattice.state_shape, dtype=torch.float64)
    _, along = jvp(lambda x: cell(x, 2), (x,), (t,))
    torch.testing.assert_close(along, (cell(x + 1e-6 * t, 2) - cell(x - 1e-6 * t, 2)) / 2e-6, rtol=1e-6, atol=1e-6)
    jacobian = torch.autograd.functional.jacobian(lambda x: cell(x, 2), x)
    torch.testing.assert_close(jacfwd(lambda x: cell(x, 2))(x), jacobian)


class Blur(Cell):
    """The mean of what a cell sees and itself; without parameters."""

    def step(self, x):
        return torch.stack([x, *self.perceive(x).unflatten(-1, (-1, x.shape[-1])).unbind(-2)]).mean(0)


def test_a_cell_of_ones_own_steps_and_is_differentiated():
    lattice = Lattice((1, 1, 3), 1, "line", boundary="periodic")
    x = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64).view(1, 1, 1, 3, 1).requires_grad_()
    y = Blur(lattice)(x, steps=2)
    torch.testing.assert_close(y, torch.ones_like(x))
    assert gradcheck(lambda x: Blur(lattice)(x, steps=2), x)


def test_a_cell_without_a_step_says_so():
    with pytest.raises(NotImplementedError, match=r"Cell: a Cell writes its step\(x\)"):
        Cell(Lattice((1, 1, 3), 1, "line"))(torch.zeros(1, 1, 1, 3, 1))
