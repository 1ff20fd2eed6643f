"""Losses against numpy, closed forms and what they must not see."""

import numpy as np
import pytest
import torch

from cube_kernels.growing import overflow_loss, spectral_loss


def states(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0, 2.0])
def test_overflow_is_the_distance_to_the_clamped_state(limit):
    x = states(3, 2, 4, 5, 6)
    expected = np.abs(x.numpy() - np.clip(x.numpy(), -limit, limit)).mean((1, 2, 3, 4))
    assert np.allclose(overflow_loss(x, limit).numpy(), expected, rtol=0, atol=1e-14)


def test_overflow_pushes_what_is_outside_alone():
    x = torch.tensor([[[0.5], [2.0], [-3.0], [-1.0]]], requires_grad=True)
    overflow_loss(x).sum().backward()
    assert x.grad.flatten().tolist() == [0.0, 0.25, -0.25, 0.0]


def test_a_limit_is_no_negative_number():
    with pytest.raises(ValueError, match="overflow_loss: limit is -1"):
        overflow_loss(torch.zeros(1, 2, 2), -1)


@pytest.mark.parametrize("shape", [(1, 7, 8), (4, 5, 6), (7, 8), (9,)], ids=str)
def test_spectra_are_compared_channel_by_channel(shape):
    x, target = states(2, *shape, 3), states(*shape, 3, seed=1)
    for sample, loss in zip(x, spectral_loss(x, target), strict=True):
        spectra = [np.abs(np.fft.fftn(s.numpy()[..., c])) for c in range(3) for s in (sample, target)]
        squares = [(spectra[2 * c] - spectra[2 * c + 1]) ** 2 for c in range(3)]
        assert loss.item() == pytest.approx(np.mean(squares) / np.prod(shape), rel=1e-12)
    assert torch.equal(spectral_loss(x, target), spectral_loss(x, target.expand_as(x)))


def test_a_shifted_texture_costs_nothing_and_another_one_does():
    x = states(2, 4, 6, 8, 3)
    assert spectral_loss(x, x.roll((1, 2, 3), dims=(1, 2, 3))).max() < 1e-24
    assert spectral_loss(x, states(2, 4, 6, 8, 3, seed=1)).min() > 0.1


def test_against_nothing_it_is_the_mean_square():
    x = states(2, 4, 6, 8, 3)
    assert torch.allclose(spectral_loss(x, torch.zeros_like(x)), x.square().mean((1, 2, 3, 4)), rtol=1e-12)


def test_it_has_the_gradient_of_finite_differences():
    x, target = states(1, 1, 3, 4, 2).requires_grad_(), states(1, 3, 4, 2, seed=1)
    assert torch.autograd.gradcheck(lambda x: spectral_loss(x, target), [x])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_width_states_are_transformed_in_float32(dtype):
    x, target = states(2, 1, 8, 8, 2, dtype=dtype), states(1, 8, 8, 2, dtype=dtype, seed=1)
    loss = spectral_loss(x, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, spectral_loss(x.float(), target.float()))


@pytest.mark.parametrize(
    ("shape", "target"), [((2, 4, 4, 3), (4, 4, 2)), ((2, 4, 4, 3), (1, 4, 4, 3)), ((4, 3), (4, 3))]
)
def test_a_target_of_another_shape_is_named(shape, target):
    with pytest.raises(ValueError, match=r"spectral_loss: x has shape \(.*\) and target \("):
        spectral_loss(torch.zeros(shape), torch.zeros(target))
