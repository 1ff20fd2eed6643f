"""Regions of an EmbeddingCube: which cells they are, that nothing is lost on the way, and how far a signal gets."""

import itertools

import pytest
import torch
from torch import nn

from cube_kernels import EmbeddingCube, Lattice, Rule
from cube_kernels.regions import block_shape, find_region, steps_to_reach

LATTICE = Lattice((4, 4, 2), 6)
RULE = Rule(hidden=8)
NAMES = ["volume", "front", "back", "corners"]
DIM = 96


def numbers(region, shape):
    """The cells of a region, numbered in the order of the volume."""
    return torch.arange(torch.Size(shape).numel()).view(shape)[region].flatten().tolist()


@pytest.mark.parametrize(
    ("name", "proportion", "expected"),
    [
        ("volume", 1, list(range(32))),
        ("front", 1, list(range(8))),
        ("back", 1, list(range(24, 32))),
        ("front", 0.5, [2, 3, 4, 5]),
        ("back", 0.75, [24, 25, 26, 27, 28, 29]),
        ("corners", 1, [0, 1, 6, 7, 24, 25, 30, 31]),
    ],
)
def test_the_cells_of_a_region(name, proportion, expected):
    region = find_region(name, LATTICE, proportion)
    assert numbers(region, LATTICE.shape) == expected
    assert torch.Size(block_shape(region, LATTICE)).numel() == len(expected)


def test_the_corners_of_thin_lattices_are_counted_once():
    for shape, expected in (((1, 1, 1), [0]), ((1, 3, 1), [0, 2]), ((2, 2, 2), list(range(8)))):
        assert numbers(find_region("corners", Lattice(shape, 1), 1), shape) == expected


def cube(**changes):
    return EmbeddingCube(**{"dim": DIM, "lattice": LATTICE, "rule": RULE, "steps": 5, **changes})


@pytest.mark.parametrize("lift", ["per_cell", "shared", "dense"])
@pytest.mark.parametrize(("enter", "leave"), list(itertools.product(NAMES, NAMES)))
def test_an_untrained_cube_is_the_identity_whatever_its_regions(enter, leave, lift):
    x = torch.randn(3, DIM)
    order = None if lift == "dense" else torch.randperm(DIM)
    untrained = cube(input=enter, output=leave, lift=lift, order=order)
    assert torch.equal(untrained(x), x)
    nn.init.normal_(untrained.readout)
    assert not torch.isclose(untrained(x), x).all(0).any(), "each dimension is written"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("placed", [False, True], ids=["plain", "permuted"])
def test_what_is_placed_on_a_region_can_be_read_back(name, placed):
    """With lifts that copy the values into channels and readouts that copy them out."""
    lattice = Lattice((3, 4, 2), 12)
    back = cube(lattice=lattice, input=name, output=name, order=torch.randperm(DIM) if placed else None).double()
    width = back.lift.shape[1]
    nn.init.zeros_(back.position)
    with torch.no_grad():
        back.lift.copy_(torch.eye(width, 12).expand_as(back.lift))
        back.readout.copy_(torch.eye(12, width).expand_as(back.readout))
    x = torch.randn(5, DIM, dtype=torch.float64)
    state = back.place(x)
    assert torch.allclose(back.read(state), x / x.square().mean(1, keepdim=True).sqrt(), rtol=1e-12)
    outside = torch.ones(lattice.shape, dtype=torch.bool)
    outside[find_region(name, lattice, 1)] = False
    assert not state[:, outside].any(), "other cells hold nothing"


def test_an_order_puts_each_dimension_on_its_place():
    order = torch.randperm(DIM)
    plain, permuted = cube().double(), cube(order=order).double()
    nn.init.normal_(plain.readout)
    permuted.load_state_dict({**plain.state_dict(), "order": order})
    x = torch.randn(2, DIM, dtype=torch.float64)
    assert torch.allclose(permuted.place(x), plain.place(x[:, order]), rtol=1e-12)
    assert torch.allclose(permuted(x)[:, order], plain(x[:, order]), rtol=1e-10)
    assert "order" not in plain.state_dict()


CROSSINGS = [
    (Lattice((5, 3, 2), 6), 4),
    (Lattice((5, 3, 2), 6, "moore"), 4),
    (Lattice((5, 3, 2), 6, radius=2), 2),
    (Lattice((5, 3, 2), 6, boundary="periodic"), 1),
    (Lattice((5, 3, 2), 6, boundary="reflecting"), 4),
    (Lattice((5, 3, 2), 6, ((0, 0, 0), (-2, 0, 0), (1, 0, 0))), 2),
    (Lattice((1, 3, 2), 6), 0),
]


@pytest.mark.parametrize(("lattice", "needed"), CROSSINGS, ids=str)
def test_a_signal_reaches_the_opposite_face_after_as_many_steps_as_are_asked_for_and_not_before(lattice, needed):
    """What enters at the front changes every cell of the back after so many steps, and not all of them one earlier;
    the constructor refuses fewer."""
    crossing = {"dim": 36, "lattice": lattice, "rule": Rule(hidden=8), "input": "front", "output": "back"}
    torch.manual_seed(0)
    reaching = EmbeddingCube(**crossing, steps=needed, backend="reference").double()
    one, other = reaching.place(torch.randn(2, 36, dtype=torch.float64)).unbind()

    def changed(steps):
        first, second = (reaching.layer(state[None], steps=steps) for state in (one, other))
        return (first != second)[(slice(None), *reaching.output)].any(-1)

    assert changed(needed).all()
    if needed:
        assert not changed(needed - 1).all()
        message = f"steps is {needed - 1}, but it takes {needed} from 'front' to every cell of 'back'"
        with pytest.raises(ValueError, match=message):
            EmbeddingCube(**crossing, steps=needed - 1)


def test_a_neighborhood_in_the_plane_never_crosses():
    assert steps_to_reach(Lattice((2, 3, 2), 6, "moore_2d"), *(find_region(n, LATTICE, 1) for n in NAMES[:2])) == 0
    with pytest.raises(ValueError, match="'moore_2d' never leads from 'front' to 'back'"):
        cube(lattice=Lattice((2, 3, 2), 6, "moore_2d"), steps=50, input="front", output="back")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": "left"}, "'left'; valid: 'volume', 'front', 'back', 'corners'"),
        ({"dim": 36, "input": "front"}, r"36 does not fill 'front' of \(4, 4, 2\), which has 8 cells.*32 or 40"),
        ({"input": "front", "proportion": 0.3}, "proportion is 0.3; of a face with 4 rows, valid: 0.25, 0.5, 0.75, 1"),
        ({"input": "corners", "proportion": 0.5}, "proportion is 0.5, but neither region is a face"),
        ({"order": torch.zeros(DIM, dtype=torch.int64)}, "no permutation of the 96 dimensions"),
        ({"order": torch.arange(DIM - 1)}, "no permutation of the 96 dimensions"),
    ],
)
def test_regions_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        cube(**changes)


def test_a_cube_with_regions_compiles_whole_and_runs_under_vmap():
    crossing = cube(input="front", output="back", order=torch.randperm(DIM), backend="reference")
    nn.init.normal_(crossing.readout)
    x = torch.randn(6, DIM)
    expected = crossing(x)
    assert torch.allclose(torch.vmap(crossing)(x.view(3, 2, DIM)).flatten(0, 1), expected, atol=1e-5)
    compiled = torch.compile(crossing, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(x), expected, atol=1e-5)
