"""CubeLayer and EmbeddingCube as modules that others put into their models."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from cube_kernels import CubeLayer, EmbeddingCube, Lattice, Rule

RULES = [
    Rule(hidden=8),
    Rule(hidden=8, update="replace"),
    Rule(hidden=8, update="gated", filters=2),
    Rule("gather", hidden=8),
]

LIFTS = ["per_cell", "shared", "dense"]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("lift", LIFTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_untrained_embedding_cube_is_the_identity(rule, lift, dtype):
    cube = EmbeddingCube(24, Lattice((2, 2, 3), 4), rule, steps=3, lift=lift).to(dtype)
    x = torch.randn(5, 24, dtype=dtype)
    assert torch.equal(cube(x), x)


@pytest.mark.parametrize("lift", LIFTS)
def test_every_parameter_of_a_cube_gets_a_gradient_after_one_step(lift):
    """The readout starts at zero, so the rest moves from the second step on."""
    cube = EmbeddingCube(24, Lattice((2, 2, 3), 4), Rule(hidden=8, update="gated"), steps=3, lift=lift)
    optimizer = torch.optim.SGD(cube.parameters(), lr=0.1)
    x, y = torch.randn(5, 24), torch.randn(5, 24)
    for _ in range(2):
        optimizer.zero_grad()
        (cube(x) - y).square().mean().backward()
        optimizer.step()
    assert all(p.grad.any() for p in cube.parameters())


def trained(cube: EmbeddingCube) -> EmbeddingCube:
    nn.init.normal_(cube.readout)
    return cube


@pytest.mark.parametrize("lift", LIFTS)
def test_the_cube_commutes_with_a_positive_factor(lift):
    cube = trained(EmbeddingCube(24, Lattice((2, 2, 3), 4), Rule(hidden=8), steps=2, lift=lift)).double()
    x = torch.randn(5, 24, dtype=torch.float64)
    assert torch.allclose(cube(3 * x), 3 * cube(x), rtol=1e-12)


def test_a_zero_embedding_has_finite_gradients():
    cube = trained(EmbeddingCube(24, Lattice((2, 2, 3), 4), Rule(hidden=8), steps=2))
    x = torch.zeros(2, 24, requires_grad=True)
    cube(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in (x, *cube.parameters()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_cube_after_a_linear_layer_runs_under_autocast(dtype):
    """The layer leaves half width, the cube's parameters are float32; the result is near that of float32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), trained(EmbeddingCube(24, Lattice((2, 2, 3), 4), Rule(hidden=8), steps=2)))
    x = torch.randn(5, 24)
    with torch.autocast("cpu", dtype):
        half = model(x)
    assert half.dtype == dtype
    half.float().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert torch.allclose(half.float(), model(x), rtol=0.05, atol=0.05 * model(x).abs().max().item())


def test_autocast_does_not_let_float64_in():
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"float64.*float32"):
        EmbeddingCube(24, Lattice((2, 2, 3), 4), Rule(), steps=1)(torch.zeros(2, 24, dtype=torch.float64))


@pytest.mark.parametrize("size", [300.0, 1e-4], ids=str)
def test_float16_neither_overflows_nor_vanishes_in_the_root_mean_square(size):
    """The square of 300 is above float16's greatest number, that of 1e-4 below its least; the cube commutes with a
    factor all the same."""
    torch.manual_seed(0)
    cube = trained(EmbeddingCube(24, Lattice((2, 2, 3), 4), Rule(hidden=8), steps=2)).half()
    x = 2 * torch.randint(0, 2, (5, 24)).half() - 1
    expected, found = cube(x).float(), cube(size * x)
    assert found.dtype == torch.float16
    assert torch.allclose(found.float() / size, expected, rtol=0.01, atol=0.01)


def test_per_cell_lifts_differ_and_a_shared_one_does_not():
    x = torch.ones(1, 12)
    for lift, alike in (("per_cell", False), ("shared", True)):
        cube = EmbeddingCube(12, Lattice((2, 2, 3), 4), Rule(hidden=8), steps=1, lift=lift)
        nn.init.zeros_(cube.position)
        cells = cube.place(x).flatten(1, 3)[0]
        assert torch.allclose(cells, cells[:1].expand_as(cells)) == alike


@pytest.mark.parametrize(
    "regions",
    [{}, {"input": "front", "output": "back"}, {"input": "corners", "output": "front", "proportion": 0.5}],
    ids=["volume", "face to face", "corners to half a face"],
)
def test_a_dense_lift_is_one_linear_map_to_all_cells_and_one_back(regions):
    """Number by number, of 7 dimensions, which fill no region."""
    lattice = Lattice((3, 2, 2), 2)
    cube = trained(EmbeddingCube(7, lattice, Rule(hidden=8), steps=4, lift="dense", **regions)).double()
    x = torch.randn(3, 7, dtype=torch.float64)
    entered, left = (
        list(itertools.product(*(range(*s.indices(n)) for s, n in zip(region, lattice.shape, strict=True))))
        for region in (cube.input, cube.output)
    )
    assert cube.lift.shape == (7, 2 * len(entered))
    assert cube.readout.shape == (2 * len(left), 7)
    size = (sum(v**2 for v in x.T) / 7).sqrt()
    state = cube.position.detach().view(lattice.state_shape).repeat(3, 1, 1, 1, 1)
    for b in range(3):
        for k, cell in enumerate(entered):
            for c in range(2):
                state[b][cell][c] += sum(x[b, d] / size[b] * cube.lift[d, 2 * k + c].detach() for d in range(7))
    assert torch.allclose(cube.place(x), state, rtol=1e-12)
    final, readout, expected = cube.layer(state).detach(), cube.readout.detach(), x.clone()
    for b in range(3):
        for d in range(7):
            for k, cell in enumerate(left):
                expected[b, d] += size[b] * sum(final[b][cell][c] * readout[2 * k + c, d] for c in range(2))
    assert torch.allclose(cube(x), expected, rtol=1e-12)
    assert not torch.allclose(cube(x), x, rtol=0.1)


def test_a_dense_lift_takes_no_order():
    dense = {"dim": 24, "lattice": Lattice((2, 2, 3), 4), "rule": Rule(), "steps": 1, "lift": "dense"}
    with pytest.raises(ValueError, match="an order has no meaning"):
        EmbeddingCube(**dense, order=torch.arange(24))
    with pytest.raises(ValueError, match="an order has no meaning"):
        EmbeddingCube(**dense).set_order(torch.arange(24))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_dense_cube_compiles_whole_and_runs_under_vmap_and_autocast(backend):
    dense = EmbeddingCube(20, Lattice((2, 2, 3), 4), Rule(hidden=8), steps=2, lift="dense", backend=backend)
    trained(dense)
    x = torch.randn(6, 20)
    expected = dense(x)
    assert torch.allclose(torch.vmap(dense)(x.view(3, 2, 20)).flatten(0, 1), expected, atol=1e-5)
    compiled = torch.compile(dense, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), expected, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = dense(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dim": 25}, ValueError, "25 does not fill.*12 cells.*24 or 36"),
        ({"dim": 7}, ValueError, "such as 12"),
        ({"lift": "both"}, ValueError, "'both'.*'per_cell', 'shared', 'dense'"),
        ({"rule": Rule(drive=2)}, ValueError, "2 drive channels"),
    ],
)
def test_a_cube_that_does_not_fit_is_refused(arguments, error, message):
    given = {"dim": 24, "lattice": Lattice((2, 2, 3), 4), "rule": Rule(), "steps": 1, **arguments}
    with pytest.raises(error, match=message):
        EmbeddingCube(**given)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 23), ValueError, r"\[2, 23\].*\[B, 24\]"),
        (torch.zeros(24), ValueError, r"\[24\].*\[B, 24\]"),
        (torch.zeros(2, 24, dtype=torch.float64), TypeError, "float64.*float32"),
        (torch.zeros(2, 24, device="meta"), ValueError, "meta.*cpu"),
    ],
)
def test_a_wrong_embedding_is_refused(x, error, message):
    with pytest.raises(error, match=message):
        EmbeddingCube(24, Lattice((2, 2, 3), 4), Rule(), steps=1)(x)


def test_a_layer_survives_copying_pickling_and_its_state_dict():
    layer = CubeLayer(Lattice((2, 3, 4), 5), Rule(hidden=6, update="gated"), steps=3)
    x = torch.randn(2, 2, 3, 4, 5)
    expected = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
    other = CubeLayer(layer.lattice, layer.rule, steps=3)
    assert not torch.equal(other(x), expected)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), expected)


def test_a_layer_trains_inside_an_ordinary_model():
    """A plain optimizer lowers the loss of a model with the layer in its middle."""
    torch.manual_seed(0)
    lattice = Lattice((2, 2, 2), 6, boundary="periodic")
    model = nn.Sequential(
        nn.Linear(4, 48),
        nn.Unflatten(1, (2, 2, 2, 6)),
        CubeLayer(lattice, Rule(hidden=8), 3),
        nn.Flatten(),
        nn.Linear(48, 1),
    )
    x = torch.randn(64, 4)
    y = (x[:, :1] * x[:, 1:2]).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (model(x) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4


def test_no_global_random_state_is_touched_by_a_call():
    layer = CubeLayer(Lattice((2, 3, 4), 5), Rule(hidden=6), steps=3)
    before = torch.get_rng_state()
    layer(torch.ones(1, 2, 3, 4, 5)).sum().backward()
    assert torch.equal(torch.get_rng_state(), before)
