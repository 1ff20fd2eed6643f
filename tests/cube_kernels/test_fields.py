"""Continuous systems by name against independent forms: numpy's padding and FFT, eigenmodes in closed form."""

import itertools
import math

import numpy as np
import pytest
import torch

from cube_kernels.rules import gray_scott, lenia, wave
from tests.conftest import PADDING

SHAPES = [(1, 8, 9), (5, 6, 7), (1, 1, 12)]
FREE = ["walls", "periodic", "replicate", "reflecting"]


def uniform(shape, channels, seed=0):
    return np.random.default_rng(seed).random((2, *shape, channels))


def laplacian(field, boundary):
    """Of ``[B, D, H, W]``, by numpy's padding."""
    total = np.zeros_like(field)
    for axis in (1, 2, 3):
        if field.shape[axis] > 1:
            width = [(1, 1) if a == axis else (0, 0) for a in range(4)]
            padded = np.pad(field, width, mode=PADDING[boundary])
            total += np.diff(padded, n=2, axis=axis)
    return total


# Gray and Scott


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("boundary", FREE)
def test_gray_and_scott_step_as_their_equations_say(shape, boundary):
    x = uniform(shape, 2)
    cell = gray_scott(shape, 0.03, 0.06, diffusion=(0.2, 0.1), time_step=0.5, boundary=boundary).double()
    found = cell(torch.from_numpy(x), steps=3).numpy()
    u, v = x[..., 0], x[..., 1]
    for _ in range(3):
        u, v = (
            u + 0.5 * (0.2 * laplacian(u, boundary) - u * v**2 + 0.03 * (1 - u)),
            v + 0.5 * (0.1 * laplacian(v, boundary) + u * v**2 - (0.03 + 0.06) * v),
        )
    assert np.allclose(found, np.stack([u, v], -1), rtol=0, atol=1e-7), "its rates are float32 numbers"


def test_a_coral_grows_beyond_its_seed_and_nothing_comes_of_nothing():
    x = torch.zeros(2, 1, 48, 48, 2)
    x[..., 0] = 1
    x[0, :, 20:28, 20:28] = torch.tensor([0.5, 0.25])
    with torch.no_grad():
        coral, nothing = gray_scott((1, 48, 48), feed=0.0545, kill=0.062)(x, steps=1500)
    assert (coral[..., 1] > 0.1).sum() > 3 * 8 * 8
    assert torch.equal(nothing, x[1])


# Waves


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_standing_wave_keeps_its_shape_and_swings_as_leapfrog_does(shape):
    """``cos(k·x)·cos(ω·t)`` on a torus, where ``sin²(ω/2) = courant²·Σ sin²(k/2)``: exact at every step."""
    courant = 0.5
    waves = [2 * math.pi * (axis + 1) / size if size > 1 else 0.0 for axis, size in enumerate(shape)]
    grid = np.meshgrid(*(np.arange(size) * k for size, k in zip(shape, waves, strict=True)), indexing="ij")
    form = np.cos(sum(grid))
    omega = 2 * math.asin(courant * math.sqrt(sum(math.sin(k / 2) ** 2 for k in waves)))
    x = np.stack([form, form * math.cos(omega)], -1)[None]
    cell = wave(shape, speed=2.0, time_step=0.25, boundary="periodic").double()
    for steps in (1, 7, 40):
        now, before = cell(torch.from_numpy(x), steps=steps)[0].unbind(-1)
        assert np.allclose(now.numpy(), form * math.cos(omega * steps), rtol=0, atol=1e-12)
        assert np.allclose(before.numpy(), form * math.cos(omega * (steps - 1)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("boundary", FREE)
def test_waves_meet_the_boundary_as_numpy_pads_it(boundary):
    x = uniform((3, 4, 5), 2)
    now, before = x[..., 0], x[..., 1]
    for _ in range(4):
        now, before = 2 * now - before + 0.25 * laplacian(now, boundary), now
    found = wave((3, 4, 5), 1.0, 0.5, boundary).double()(torch.from_numpy(x), steps=4)
    assert np.allclose(found.numpy(), np.stack([now, before], -1), rtol=0, atol=1e-12)


def test_an_absorbing_boundary_swallows_waves():
    x = torch.zeros(1, 1, 60, 60, 2)
    x[:, :, 28:32, 28:32] = 1
    sizes = {b: wave((1, 60, 60), 1.0, 0.5, b)(x, steps=400).square().sum() for b in ("absorbing", "replicate")}
    assert sizes["absorbing"] < 0.1 * sizes["replicate"]


# Lenia


def published_lenia(x, radius, mu, sigma, dt, peaks, steps):
    """On a torus by FFT, the kernel laid out over the whole of it."""
    shape = x.shape[1:4]
    far = [(np.arange(size) + size // 2) % size - size // 2 if size > 1 else np.zeros(1) for size in shape]
    distance = np.sqrt(sum(a**2 for a in np.meshgrid(*far, indexing="ij"))) / radius
    shells = len(peaks) * distance
    inside = np.minimum(shells.astype(int), len(peaks) - 1)
    r = shells % 1
    with np.errstate(divide="ignore"):
        core = np.where((r > 0) & (shells < len(peaks)), np.exp(4 - 1 / np.where(r > 0, r * (1 - r), 1)), 0)
    kernel = np.array(peaks)[inside] * core
    spectrum = np.fft.fftn(kernel / kernel.sum())
    field = x[..., 0]
    for _ in range(steps):
        seen = np.fft.ifftn(np.fft.fftn(field, axes=(1, 2, 3)) * spectrum, axes=(1, 2, 3)).real
        growth = 2 * np.exp(-((seen - mu) ** 2) / (2 * sigma**2)) - 1
        field = np.clip(field + dt * growth, 0, 1)
    return field[..., None]


@pytest.mark.parametrize(
    ("shape", "radius", "peaks"),
    [
        ((1, 30, 32), 13, (1.0,)),
        ((12, 13, 14), 5, (1.0,)),
        ((1, 30, 32), 12, (0.5, 1.0, 2 / 3)),
        ((1, 1, 40), 9, (1.0,)),
    ],
    ids=["plane", "space", "shells", "line"],
)
def test_lenia_steps_as_published_by_fft(shape, radius, peaks):
    x = uniform(shape, 1)
    found = lenia(shape, radius, 0.45, 0.05, 0.2, peaks).double()(torch.from_numpy(x), steps=3).numpy()
    assert np.allclose(found, published_lenia(x, radius, 0.45, 0.05, 0.2, peaks, 3), rtol=0, atol=1e-5)
    assert np.abs(found - x).max() > 0.1


def test_the_kernel_holds_the_cells_that_the_page_says():
    for shape, cells in (((1, 30, 30), 516), ((30, 30, 30), 9092)):
        kernel = lenia(shape).kernel
        assert kernel.shape == (1, cells, 1)
        assert kernel.sum() == pytest.approx(1)
        assert cells == sum(
            0 < math.hypot(*o) < 13 for o in itertools.product(*(range(-13, 14) if size > 1 else [0] for size in shape))
        )


# All of them

READY = {
    "gray_scott": lambda shape, **given: gray_scott(shape, **{"feed": 0.03, "kill": 0.06, **given}),
    "wave": lambda shape, **given: wave(shape, **{"speed": 1.0, "time_step": 0.5, **given}),
    "lenia": lambda shape, **given: lenia(shape, **{"radius": 3, "middle": 0.5, "width": 0.2, **given}),
}


@pytest.mark.parametrize("name", READY)
def test_states_have_gradients_and_rules_have_none_to_train(name):
    cell = READY[name]((1, 4, 5)).double()
    assert list(cell.parameters()) == []
    x = torch.from_numpy(uniform((1, 4, 5), cell.lattice.channels)[:1]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cell(x, steps=2), [x])


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("gray_scott", {"feed": -1}, "gray_scott: feed is -1"),
        ("gray_scott", {"diffusion": (0.1,)}, r"gray_scott: diffusion is \(0.1,\); it takes one number for u and one"),
        (
            "gray_scott",
            {"diffusion": (0.3, 0.1)},
            "gray_scott: 2·axes·time_step·diffusion is 1.2; a step is stable up to",
        ),
        ("wave", {"time_step": 0.8}, "wave: speed·time_step·√axes is 1.13.*; a step is stable up to 1 only"),
        ("wave", {"speed": -1}, "wave: speed is -1"),
        ("lenia", {"radius": 1}, "lenia: radius is 1; it must be at least 2"),
        ("lenia", {"peaks": (0.0,)}, r"lenia: no cell lies on a shell: radius is 3 and peaks \(0.0,\)"),
        ("lenia", {"peaks": (2.0,)}, "lenia: each of peaks is 2.0"),
        ("lenia", {"time_step": 2}, "lenia: time_step is 2"),
        ("wave", {"boundary": "none"}, "boundary is 'none'; valid:"),
    ],
)
def test_what_is_out_of_range_is_named(name, given, message):
    with pytest.raises(ValueError, match=message):
        READY[name]((1, 6, 6), **given)
