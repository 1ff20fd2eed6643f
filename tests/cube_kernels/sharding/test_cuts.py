"""Which planes a rank borrows, against a walk plane by plane; how the generator and the absorbing boundary count."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from cube_kernels import Alive, CubeLayer, Lattice, Rule, Window
from cube_kernels.backends.reference import lifetimes
from cube_kernels.lattice import FOREVER
from cube_kernels.philox import cell_numbers, fires
from cube_kernels.sharding.cuts import even_sizes, slab


@pytest.mark.parametrize("size", [1, 2, 7, 12])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_even_sizes_are_those_of_chunk(size, ranks):
    chunks = [len(chunk) for chunk in torch.arange(size).chunk(ranks)]
    assert even_sizes(size, ranks) == (*chunks, *[0] * (ranks - len(chunks)))


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("halo", [0, 1, 2, 5, 13])
@pytest.mark.parametrize("sizes", [(6,), (3, 3), (1, 4, 1), (0, 5, 0, 1), (2, 0, 2)])
def test_halos_hold_the_planes_around_a_slab(sizes, halo, periodic):
    size, starts = sum(sizes), np.cumsum([0, *sizes])
    blocks = [list(range(starts[r], starts[r + 1])) for r in range(len(sizes))]
    for rank, own in enumerate(blocks):
        found = slab(sizes, rank, halo, periodic)
        assert (found.first, found.thickness) == (starts[rank], len(own))
        if not own:
            assert found.widened == 0
            assert not found.borrowed
            continue
        around = range(own[0] - halo, own[-1] + 1 + halo)
        expected = [plane % size for plane in around if periodic or 0 <= plane < size]
        wide: list = [None] * found.widened
        wide[found.low : found.low + len(own)] = own
        for planes in found.borrowed:
            assert planes.borrower == rank
            for i in range(planes.thickness):
                assert wide[planes.place + i] is None
                wide[planes.place + i] = blocks[planes.owner][planes.owned + i]
        assert wide == expected


def far_window(boundary: str = "walls") -> Lattice:
    """Two planes of a lattice of 2³⁷ cells."""
    window = Window((2**13, 2**12, 2**12), (2**12 + 1, 0, 2**11 - 3), ((True, True), (False, True), (True, True)))
    return Lattice((2, 3, 7), 2, boundary=boundary, window=window)


def test_cells_are_numbered_in_the_whole_lattice():
    numbers = cell_numbers(far_window(), device=torch.device("cpu"))
    for d, h, w in np.ndindex(2, 3, 7):
        assert numbers[d, h, w] == ((2**12 + 1 + d) * 2**12 + h) * 2**12 + 2**11 - 3 + w
    assert numbers.min() > 2**32


def test_a_periodic_window_goes_around():
    window = Window((5, 3, 3), (4, 0, 0), ((True, True), (False, False), (False, False)))
    assert Lattice((3, 3, 3), 1, boundary="periodic", window=window).axis_places(0) == [4, 0, 1]


def philox_word(number: int, step: int, sample: int, seed: int) -> int:
    """Philox4x32-10 in Python's integers, word by word."""
    word = [number // 4 % 2**32, step, sample, number // 2**34]
    low, high = seed % 2**32, seed // 2**32
    for _ in range(10):
        first, second = 0xD2511F53 * word[0], 0xCD9E8D57 * word[2]
        word = [second >> 32 ^ word[1] ^ low, second % 2**32, first >> 32 ^ word[3] ^ high, first % 2**32]
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return word[number % 4]


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_counters_beyond_32_bits(backend):
    """A block far inside a lattice that fits no memory draws what its cells' numbers say, at any step and sample."""
    lattice, seed, first_step, first_sample = far_window(), 2**40 + 3, 2**31 - 2, 2**31 - 5
    lattice = replace(lattice, neighborhood=((0, 0, 0),))  # sees itself alone, so that all cells are computed
    layer = CubeLayer(lattice, Rule(hidden=3, fire_rate=0.5), 1, backend=backend)
    x = torch.randn(2, *lattice.state_shape)
    torch.nn.init.ones_(layer.head_bias)
    with torch.no_grad():
        changed = layer(x, seed=seed, first_step=first_step, first_sample=first_sample) != x
    numbers = cell_numbers(lattice, device=torch.device("cpu"))
    for sample, (d, h, w) in itertools.product(range(2), np.ndindex(*lattice.shape)):
        word = philox_word(int(numbers[d, h, w]), first_step, first_sample + sample, seed)
        assert changed[sample, d, h, w].tolist() == [word < 2**31] * 2
    drawn = fires(numbers.flatten(), 2, first_step, seed, 0.5, first_sample)
    assert torch.equal(drawn, changed[..., 0].flatten(1))


def test_steps_leave_out_the_cells_beside_a_cut():
    """One neighborhood a step, two where life is measured after the update; none along an axis nobody looks along."""
    cut = ((True, False), (True, True), (False, True))
    window = Window((9, 9, 9), (2, 2, 0), cut)
    lattice = Lattice((7, 5, 4), 1, ((0, 0, 0), (2, 0, 0), (0, 1, 0)), window=window)
    assert lattice.axis_lifetimes(0, 1) == [0, 0, 1, 1, 2, 2, 3]
    assert lattice.axis_lifetimes(1, 1) == [0, 1, 2, 1, 0]
    assert lattice.axis_lifetimes(2, 1) == [FOREVER] * 4
    # The proposals of the cells around count from the first neighborhood on.
    assert lattice.axis_lifetimes(0, 2) == [0, 0, 1, 1, 1, 1, 2]
    assert lattice.axis_lifetimes(1, 2) == [0, 1, 1, 1, 0]
    least = lifetimes(lattice, 1, device=torch.device("cpu"))[..., 0]
    assert least[6].tolist() == [[0] * 4, [1] * 4, [2] * 4, [1] * 4, [0] * 4]


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("alive", [None, Alive(0, 0.2)])
def test_cells_beside_a_cut_keep_what_was_computed_last(backend, alive):
    """And what was computed is the whole lattice's."""
    torch.manual_seed(0)
    whole = Lattice((12, 3, 4), 3, "moore", boundary="absorbing", sponge_width=5)
    rule = Rule(hidden=6, fire_rate=0.7, alive=alive)
    window = Window((12, 3, 4), (3, 0, 0), ((True, False), (False, False), (False, False)))
    part = replace(whole, shape=(9, 3, 4), window=window)
    layer = CubeLayer(whole, rule, 2, backend=backend).double()
    torch.nn.init.normal_(layer.head_weight, std=0.3)
    x = torch.randn(2, *whole.state_shape, dtype=torch.float64)
    with torch.no_grad():
        states = layer(x, seed=1, trajectory_every=1).trajectory
        layer.lattice = part
        result = layer(x[:, 3:], seed=1)
    if alive is None:  # one plane more is left out in each step
        assert torch.equal(result[:, 0], x[:, 3])
        torch.testing.assert_close(result[:, 1], states[0][:, 4])
    ring = 2 if alive is None else 4
    torch.testing.assert_close(result[:, ring:], states[1][:, 3 + ring :])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"origin": (3, 0, 0)}, r"origin is \(3, 0, 0\), but the whole has \(3, 3, 3\)"),
        ({"whole": (3, 3)}, r"whole is \(3, 3\); it takes one entry for each axis"),
        ({"cut": ((True,),) * 3}, "takes \\(low, high\\) for each axis"),
        ({"cut": (("no", True),) * 3}, "it takes True or False"),
        ({"origin": (-1, 0, 0)}, "must be at least 0"),
    ],
)
def test_a_wrong_window_is_refused(given, message):
    right = {"whole": (3, 3, 3), "origin": (1, 0, 0), "cut": ((True, False),) + ((False, False),) * 2}
    with pytest.raises((ValueError, TypeError), match=message):
        Window(**right | given)


def test_a_window_must_fit_its_lattice():
    window = Window((5, 3, 3), (1, 0, 0), ((True, False), (False, False), (False, False)))
    Lattice((4, 3, 3), 1, window=window)
    with pytest.raises(ValueError, match="along axis D the window has 3 cells from 1 on of 5"):
        Lattice((3, 3, 3), 1, window=window)
    with pytest.raises(TypeError, match="takes a Window or None"):
        Lattice((3, 3, 3), 1, window=(1, 2, 3))


def test_a_window_is_part_of_the_text_of_a_lattice():
    assert Lattice.from_key(far_window().key) == far_window()
    assert far_window() != replace(far_window(), window=None)
