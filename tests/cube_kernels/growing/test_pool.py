"""The sample pool: the authors' order, seed and damage; nothing drawn from elsewhere; one clear error each."""

import pytest
import torch

from cube_kernels.growing import SamplePool, ball

SEED = torch.full((1, 5, 6, 2), 0.5)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def filled(size, seed=0):
    """A pool whose state ``i`` is all ``i``."""
    pool = SamplePool(SEED, size, draws(seed))
    pool.states += torch.arange(size).view(-1, 1, 1, 1, 1) - SEED
    return pool


def first_numbers(x):
    return x.flatten(1)[:, 0]


def test_it_begins_with_the_seed_everywhere_and_keeps_its_own_copy():
    seed = SEED.clone()
    pool = SamplePool(seed, 4, draws())
    seed.zero_()
    assert torch.equal(pool.states, SEED.expand(4, *SEED.shape))
    pool.states[0] = 7
    assert torch.equal(pool.states[1], SEED)


def test_places_are_drawn_once_each_and_the_first_becomes_the_seed():
    pool = filled(10)
    counts = torch.zeros(10)
    for _ in range(100):
        places, x = pool.sample(4)
        assert len(set(places.tolist())) == 4
        assert torch.equal(x[0], SEED)
        assert torch.equal(first_numbers(x[1:]), places[1:].float())
        counts[places] += 1
    assert counts.min() > 20, "some place is hardly drawn"
    assert torch.equal(first_numbers(pool.states), torch.arange(10.0)), "sampling changed the pool"


def test_the_worst_is_replaced_and_the_best_are_damaged():
    pool = filled(8)
    places, x = pool.sample(6, losses=first_numbers, damage=lambda *_: torch.ones(2, 1, 5, 6, dtype=bool), damaged=2)
    assert places.tolist() == sorted(places.tolist(), reverse=True)
    assert torch.equal(x[0], SEED)
    assert first_numbers(x)[1:4].tolist() == places[1:4].tolist()
    assert torch.equal(x[4:], torch.zeros_like(x[4:]))


def test_a_state_that_is_no_number_is_the_worst():
    pool = filled(4)
    pool.states[2] = torch.nan
    places, x = pool.sample(4, losses=first_numbers)
    assert places[0] == 2
    assert torch.equal(x[0], SEED)
    assert x.isfinite().all()


def test_damage_is_what_the_shape_says():
    pool = SamplePool(SEED, 8, draws(3))
    _, x = pool.sample(4, damage=ball)
    again = draws(3)
    torch.randperm(8, generator=again)
    lost = ball(3, (1, 5, 6), again)
    assert lost.any()
    assert torch.equal(x[1:] == 0, lost[..., None].expand(-1, -1, -1, -1, 2))


def test_update_puts_back_without_the_graph():
    pool = filled(6)
    places, x = pool.sample(3)
    weight = torch.tensor(2.0, requires_grad=True)
    pool.update(places, x * weight)
    assert torch.equal(pool.states[places], 2 * x)
    assert not pool.states.requires_grad
    others = [place for place in range(6) if place not in places.tolist()]
    assert first_numbers(pool.states[others]).tolist() == others


def test_only_its_generator_is_drawn_from_and_it_resumes():
    before = torch.get_rng_state()
    pool = filled(8, seed=5)
    pool.sample(3, damage=ball, damaged=1)
    again = SamplePool(SEED, 8, draws())
    again.states = pool.states.clone()
    again.generator.set_state(pool.generator.get_state())
    first, second = pool.sample(3, damage=ball, damaged=1), again.sample(3, damage=ball, damaged=1)
    assert torch.equal(first.places, second.places)
    assert torch.equal(first.x, second.x)
    assert torch.equal(torch.get_rng_state(), before)


def test_mistakes_are_named():
    pool = SamplePool(SEED, 4, draws())
    with pytest.raises(ValueError, match="batch is 8, but the pool has 4 states"):
        pool.sample(8)
    with pytest.raises(ValueError, match="damaged is 3, and one state is replaced by the seed, but batch is 3"):
        pool.sample(3, damage=ball)
    with pytest.raises(ValueError, match=r"losses gives shape \(\); it takes one a state, \(3,\)"):
        pool.sample(3, losses=torch.mean)
    with pytest.raises(ValueError, match=r"update: x has shape \(3, 2, 5, 6\); it takes \(3, 1, 5, 6, 2\)"):
        pool.update(torch.arange(3), torch.zeros(3, 2, 5, 6))
    with pytest.raises(ValueError, match="size is 0"):
        SamplePool(SEED, 0, draws())
    with pytest.raises(TypeError, match="the generator is 0; it takes a Generator"):
        SamplePool(SEED, 4, 0)
