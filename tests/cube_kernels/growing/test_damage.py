"""Shapes of damage: what their names say, in the plane and in space, drawn from the generator alone."""

import math

import pytest
import torch

from cube_kernels.growing import ball, box, half_space

SHAPES = [ball, box, half_space]


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def lost_cells(mask):
    """Coordinates of the lost cells along the axes that have more than one cell, from -1 to 1."""
    axes = [axis for axis, size in enumerate(mask.shape) if size > 1]
    places = mask.nonzero()[:, axes].double()
    sizes = torch.tensor([mask.shape[axis] for axis in axes])
    return places * 2 / (sizes - 1) - 1


@pytest.mark.parametrize("shape", [(1, 81, 81), (41, 41, 41)], ids=["plane", "space"])
def test_a_ball_has_the_measure_of_its_radius(shape):
    masks = ball(8, shape, draws(), radius=(0.4, 0.4))
    axes = sum(size > 1 for size in shape)
    measure = math.pi * 0.4**2 / 2**2 if axes == 2 else 4 / 3 * math.pi * 0.4**3 / 2**3
    for mask in masks:
        cells = lost_cells(mask)
        assert len(cells) == pytest.approx(measure * math.prod(size - 1 for size in shape if size > 1), rel=0.05)
        assert ((cells - cells.mean(0)).norm(dim=1) < 0.4 + 0.03).all()
        assert cells.mean(0).abs().max() <= 0.5 + 0.03


@pytest.mark.parametrize("shape", [(1, 81, 81), (41, 41, 41)], ids=["plane", "space"])
def test_a_box_fills_its_extent(shape):
    for mask in box(8, shape, draws(), radius=(0.3, 0.3)):
        places = mask.nonzero()
        low, high = places.amin(0), places.amax(0)
        assert math.prod((high - low + 1).tolist()) == len(places), "not all of the box is lost"
        for axis, size in enumerate(shape):
            if size > 1:
                assert (high - low)[axis] * 2 / (size - 1) == pytest.approx(0.6, abs=4 / (size - 1))


@pytest.mark.parametrize("shape", [(1, 21, 21), (9, 9, 9)], ids=["plane", "space"])
def test_a_half_space_is_one_side_of_a_plane(shape):
    for mask in half_space(8, shape, draws()):
        lost, kept = lost_cells(mask), lost_cells(~mask)
        assert len(lost) > 0
        assert len(kept) > 0
        # Perceptron: two sets that a plane parts are told apart by one.
        points = torch.cat([torch.cat([lost, kept]), torch.ones(mask.sum() + (~mask).sum(), 1)], dim=1)
        signs = torch.cat([torch.ones(len(lost)), -torch.ones(len(kept))]).double()
        plane = torch.zeros(points.shape[1], dtype=torch.float64)
        for _ in range(20000):
            wrong = ((points @ plane) * signs <= 0).nonzero()
            if not len(wrong):
                break
            plane += points[wrong[0, 0]] * signs[wrong[0, 0]]
        assert not len(wrong)


@pytest.mark.parametrize("damage", SHAPES)
@pytest.mark.parametrize("shape", [(7,), (1, 6, 5), (1, 1, 9), (4, 6, 5), (3, 4)], ids=str)
def test_any_number_of_axes(damage, shape):
    masks = damage(3, shape, draws())
    assert masks.shape == (3, *shape)
    assert masks.dtype == torch.bool
    assert damage(0, shape, draws()).shape == (0, *shape)


def test_an_axis_of_one_cell_takes_no_part():
    """The middle of a ball lies in it, so that no ball of a size misses it."""
    assert ball(100, (1, 31, 31), draws(), radius=(0.1, 0.1)).flatten(1).any(1).all()


@pytest.mark.parametrize("damage", SHAPES)
def test_the_generator_decides_alone(damage):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (damage(4, (1, 31, 31), draws(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("damage", SHAPES)
def test_what_is_no_shape_count_or_generator_is_named(damage):
    name = damage.__name__
    with pytest.raises(ValueError, match=f"{name}: count is -1"):
        damage(-1, (1, 4, 4), draws())
    with pytest.raises(ValueError, match=f"{name}: every size of shape is 0"):
        damage(1, (0, 4), draws())
    with pytest.raises(TypeError, match=f"{name}: shape is 4; it takes a tuple"):
        damage(1, 4, draws())
    with pytest.raises(TypeError, match="the generator is 7; it takes a Generator"):
        damage(1, (4, 4), 7)


@pytest.mark.parametrize("damage", [ball, box])
@pytest.mark.parametrize("radius", [(0.4, 0.1), (0.1,), (0.1, 0.2, 0.3), (-0.1, 0.2)])
def test_a_radius_is_a_pair_that_ascends(damage, radius):
    with pytest.raises(ValueError, match="radius is"):
        damage(1, (4, 4), draws(), radius)
