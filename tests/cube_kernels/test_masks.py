"""Fire, write and alive masks, the absorbing boundary, trajectories and convergence, each by what it promises."""

import math

import pytest
import torch

from cube_kernels import Alive, CubeLayer, Lattice, Rule
from cube_kernels.philox import fires, philox

BACKENDS = ["native", "reference"]
both = pytest.mark.parametrize("backend", BACKENDS)


def make_layer(backend="native", lattice=None, steps=3, **rule):
    torch.manual_seed(0)
    lattice = lattice or Lattice((3, 4, 5), 4)
    layer = CubeLayer(lattice, Rule(hidden=8, **rule), steps, backend=backend)
    torch.nn.init.normal_(layer.head_weight, std=0.5)
    return layer, torch.randn(2, *lattice.shape, lattice.channels)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, words):
    """Of philox4x32-10 in the Random123 distribution (Salmon et al., SC 2011)."""
    assert tuple(int(w) for w in philox(tuple(map(torch.tensor, counter)), key)) == words


def test_cells_fire_at_the_rate_and_independently():
    """Within five standard deviations over 200,000 draws, of a mean and of every correlation of neighbors."""
    rate, cells = 0.3, 1000
    drawn = torch.stack([fires(torch.arange(cells), 40, step, 5, rate) for step in range(5)]).double() - rate
    five_sigma = 5 / math.sqrt(drawn.numel())
    deviation = math.sqrt(rate * (1 - rate))
    assert abs(drawn.mean()) < five_sigma * deviation
    for pairs in (drawn[:, :, 1:] * drawn[:, :, :-1], drawn[:, 1:] * drawn[:, :-1], drawn[1:] * drawn[:-1]):
        assert abs(pairs.mean()) < 1.2 * five_sigma * deviation**2


@both
def test_a_cell_that_does_not_fire_keeps_its_state(backend):
    layer, x = make_layer(backend, steps=1, fire_rate=0.4)
    changed = (layer(x, seed=9) != x).any(-1).flatten(1)
    assert torch.equal(changed, fires(torch.arange(60), 2, 0, 9, 0.4))
    assert not torch.equal(layer(x, seed=9), layer(x, seed=10))


@both
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_at_rate_zero_nothing_happens_and_at_one_everything_does(backend, rate):
    layer, x = make_layer(backend, fire_rate=rate)
    result = layer(x, seed=0 if rate < 1 else None)
    assert torch.equal(result, x) if rate == 0 else (result != x).all()


@both
@pytest.mark.parametrize("update", ["residual", "replace", "gated", "leaky"])
def test_rescaling_keeps_the_expected_change(backend, update):
    """A fired cell's change is divided by the rate."""
    plain, x = make_layer(backend, steps=1, update=update, fire_rate=0.4)
    rescaled, _ = make_layer(backend, steps=1, update=update, fire_rate=0.4, fire_rescale=True)
    change, larger = plain(x, seed=1) - x, rescaled(x, seed=1) - x
    torch.testing.assert_close(larger, change / 0.4, rtol=1e-4, atol=1e-5)


@both
def test_no_global_random_state_is_read_or_changed(backend):
    layer, x = make_layer(backend, fire_rate=0.5)
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), layer(x, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(layer(x, seed=4), first)


@both
def test_protected_cells_and_channels_never_change(backend):
    alive = Alive(0, threshold=10.0)  # everything dies, but for what is protected
    layer, x = make_layer(backend, immutable_channels=(1, 3), alive=alive)
    mask = torch.rand(2, 3, 4, 5) > 0.5
    result = layer(x, write_mask=mask)
    assert torch.equal(result[~mask], x[~mask])
    assert torch.equal(result[..., [1, 3]], x[..., [1, 3]])
    assert (result[mask][:, [0, 2]] == 0).all()


@both
@pytest.mark.parametrize("when", ["before", "after", "both"])
def test_a_lone_living_cell_keeps_its_neighborhood_alive(when, backend):
    lattice = Lattice((1, 5, 5), 2, "moore_2d")
    layer, _ = make_layer(backend, lattice, steps=1, alive=Alive(1, 0.5, when, dead_value=-7.0))
    with torch.no_grad():
        layer.head_weight.zero_()
        layer.head_bias.copy_(torch.tensor([1.0, -0.4 if when == "before" else 0.0]))
    x = torch.zeros(1, 1, 5, 5, 2)
    x[0, 0, 1, 1, 1] = 0.8  # before the update it lives; after a change of -0.4 it would not
    lives = torch.zeros(5, 5, dtype=torch.bool)
    lives[:3, :3] = True
    result = layer(x)[0, 0]
    assert torch.equal(result[..., 0] == 1.0, lives)
    assert (result[~lives] == -7.0).all()


@both
def test_the_absorbing_boundary_multiplies_by_its_factor(backend):
    """Of a rule that changes nothing, T steps leave x·ηᵀ; the center of a wide lattice keeps its state."""
    lattice = Lattice((1, 9, 12), 1, boundary="absorbing", sponge_width=3, sponge_strength=0.8)
    layer, x = make_layer(backend, lattice, steps=4)
    torch.nn.init.zeros_(layer.head_weight)
    factor = torch.tensor(
        [
            [
                math.prod(math.exp(-((0.8 * max(0, 3 - min(i, n - 1 - i)) / 3) ** 2)) for i, n in ((h, 9), (w, 12)))
                for w in range(12)
            ]
            for h in range(9)
        ]
    )
    torch.testing.assert_close(layer(x), x * factor[None, None, :, :, None] ** 4)
    assert torch.equal(layer(x)[:, :, 3:6, 3:9], x[:, :, 3:6, 3:9])


@both
def test_a_clamp_holds_in_every_state(backend):
    layer, x = make_layer(backend, steps=6, clamp=(-0.25, 0.5))
    states = layer(x, trajectory_every=1).trajectory
    assert states.min() == -0.25
    assert states.max() == 0.5


@both
def test_a_trajectory_holds_the_states_of_shorter_rollouts(backend):
    layer, x = make_layer(backend, steps=7)
    result = layer(x, trajectory_every=3)
    assert torch.equal(result.trajectory, torch.stack([layer(x, steps=3), layer(x, steps=6)]))
    assert torch.equal(result.state, layer(x))
    assert result.steps.tolist() == [7, 7]


@both
def test_every_state_of_a_trajectory_has_its_gradient(backend):
    layer, x = make_layer(backend, steps=5)
    layer(x, trajectory_every=2).trajectory.sum().backward()
    together = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    (layer(x, steps=2).sum() + layer(x, steps=4).sum()).backward()
    for one, other in zip(together, layer.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-4)


@both
def test_each_sample_stops_when_it_has_converged(backend):
    """A leaky cell that goes half the way to zero at each step: its relative change is 1/2 of what is left."""
    lattice = Lattice((2, 2, 2), 1)
    layer = CubeLayer(lattice, Rule(hidden=1, update="leaky", squash="identity", step_size=0.5), 50, backend=backend)
    target = 4.0
    with torch.no_grad():
        layer.head_weight.zero_()
        layer.head_bias.fill_(target)
    start = torch.tensor([3.0, 3.9, target, 0.0])
    x = start.view(4, 1, 1, 1, 1).expand(4, 2, 2, 2, 1).contiguous()
    result = layer(x, tolerance=0.01)
    for value, steps, state in zip(start.tolist(), result.steps.tolist(), result.state[:, 0, 0, 0, 0], strict=True):
        expected, count, change = value, 0, math.inf
        while change > 0.01:
            change = abs(0.5 * (target - expected)) / abs(expected) if expected else math.inf
            expected, count = expected + 0.5 * (target - expected), count + 1
        assert steps == count
        assert state.item() == pytest.approx(expected)
    assert len(set(result.steps.tolist())) > 2


@both
def test_the_gradient_of_a_stopped_sample_is_that_of_the_steps_it_took(backend):
    layer, x = make_layer(backend, steps=30, update="gated")
    result = layer(x, tolerance=0.2)
    steps = result.steps.tolist()
    assert max(steps) < 30
    result.state.sum().backward()
    stopped = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    sum(layer(x[i : i + 1], steps=count).sum() for i, count in enumerate(steps)).backward()
    for one, other in zip(stopped, layer.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-4)


def test_a_time_constant_slows_a_leaky_cell():
    layer, x = make_layer(steps=1, update="leaky", step_size=0.5)
    change = layer(x) - x
    with torch.no_grad():
        layer.log_time_constant.fill_(math.log(4))
    torch.testing.assert_close(layer(x) - x, change / 4)


@both
def test_calls_that_count_on_are_one_rollout(backend):
    """Steps one by one, and samples apart, draw what they draw together."""
    layer = CubeLayer(Lattice((2, 3, 5), 4), Rule(hidden=6, fire_rate=0.5), 5, backend=backend).double()
    torch.nn.init.normal_(layer.head_weight)
    x = torch.randn(3, 2, 3, 5, 4, dtype=torch.float64)
    together, stepped = layer(x, seed=7), x
    for step in range(5):
        stepped = layer(stepped, steps=1, seed=7, first_step=step)
    torch.testing.assert_close(stepped, together)
    torch.testing.assert_close(layer(x[1:], seed=7, first_sample=1), together[1:])
    assert not torch.allclose(layer(x[1:], seed=7), together[1:])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"first_step": -1}, "first_step is -1; it must be at least 0"),
        ({"first_step": 2**31 - 4}, r"first_step is 2147483644 and steps is 5; together they are at most 2\^31"),
        ({"first_sample": 2**31}, r"first_sample is 2147483648; it must be below 2\^31"),
        ({"first_sample": True}, "first_sample is True; it takes an integer"),
    ],
)
def test_wrong_counts_are_refused(counts, message):
    layer = CubeLayer(Lattice((2, 3, 5), 4), Rule(hidden=6, fire_rate=0.5), 5)
    with pytest.raises((ValueError, TypeError), match=message):
        layer(torch.zeros(1, 2, 3, 5, 4), seed=7, **counts)
