"""Frames and films: pixel by pixel against loops, and read back."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cube_kernels import view
from cube_kernels.view import colors, frames, save_film, shade


def states(*shape, seed=0):
    """Color times opacity, and opacity, and two more channels."""
    drawn = torch.rand(*shape, 6, generator=torch.Generator().manual_seed(seed))
    drawn[..., :3] *= drawn[..., 3:4]
    return drawn


def looked_at(cells):
    """Light from white through cells ``[4]`` each, the first in front, one by one."""
    light = np.ones(3)
    for cell in reversed(cells):
        light = cell[:3] + (1 - cell[3]) * light
    return light * 255


@pytest.mark.parametrize(("axis", "rows"), [("D", (1, 2)), ("H", (0, 2)), ("W", (0, 1))])
def test_cells_lie_before_each_other_as_opacity_lets_them(axis, rows):
    trajectory = states(2, 3, 4, 5)
    found = frames(trajectory, axis=axis)
    assert found.dtype == torch.uint8
    along = "DHW".index(axis)
    for step, image in zip(trajectory.double().numpy(), found.numpy(), strict=True):
        assert image.shape == (*(step.shape[a] for a in rows), 3)
        for row, column in np.ndindex(image.shape[:2]):
            at = [slice(None)] * 3
            at[rows[0]], at[rows[1]] = row, column
            assert np.abs(image[row, column] - looked_at(step[tuple(at)][:, :4])).max() <= 0.51
        assert step.shape[along] > 1


@pytest.mark.parametrize("axis", "DHW")
def test_a_slice_is_a_lattice_of_one(axis):
    trajectory = states(2, 3, 4, 5)
    one = trajectory.narrow(1 + "DHW".index(axis), 1, 1)
    assert torch.equal(frames(trajectory, axis=axis, at=1), frames(one, axis=axis))


def test_states_beyond_their_range_and_without_a_value_are_painted_all_the_same():
    wild = torch.tensor([[3.0, -1.0, 0.2, 1.0], [0.9, 0.9, 0.9, 0.5], [torch.nan] * 4, [0.5, 0.5, 0.5, -2.0]])
    found = frames(wild.view(1, 1, 1, 4, 4))[0, 0]
    assert found.tolist() == [[255, 0, 51], [255, 255, 255], [255, 255, 255], [255, 255, 255]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_any_dtype(dtype):
    trajectory = states(1, 1, 4, 5)
    difference = frames(trajectory.to(dtype)).int() - frames(trajectory).int()
    assert difference.abs().max() <= 2


def test_one_channel_is_a_shade():
    x = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 5, 1)
    assert frames(x)[0, 0, :, 0].tolist() == [255, 0, 0, 0, 0]
    assert frames(x, shade(0, 0, 4, (1.0, 0.0, 0.0)))[0, 0].tolist()[1:4] == [[255, v, v] for v in (191, 128, 64)]
    assert frames(x, shade(0, 4, 0))[0, 0, :, 0].tolist() == [0, 64, 128, 191, 255]


def test_mistakes_are_named():
    one = states(2, 1, 4, 5)
    with pytest.raises(ValueError, match=r"states has shape \(1, 4, 5, 6\); it takes one sample's, \[T, D, H, W, C\]"):
        frames(one[0])
    with pytest.raises(ValueError, match="axis is 'X'; valid: 'D', 'H', 'W'"):
        frames(one, axis="X")
    with pytest.raises(ValueError, match="at is 1, but there are 1 slices along D"):
        frames(one, at=1)
    with pytest.raises(ValueError, match=r"paint gives shape \(2, 1, 4, 5, 3\); it takes \(2, 1, 4, 5, 4\)"):
        frames(one, lambda x: x[..., :3])
    with pytest.raises(ValueError, match="shade: channel is 6, but the states have 6 channels"):
        frames(one, shade(6))
    with pytest.raises(ValueError, match="shade: low and high are both 1.0"):
        shade(0, 1, 1)
    with pytest.raises(ValueError, match="shade: every part of color is 255"):
        shade(0, color=(255, 0, 0))


def test_a_gif_comes_back(tmp_path):
    images = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=torch.uint8)
    images = images.view(3, 1, 1, 3).expand(3, 4, 5, 3)
    save_film(tmp_path / "film.gif", images, rate=10, scale=3)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (3, (15, 12), 100, 0)
        for number, image in enumerate(images):
            film.seek(number)
            assert np.array_equal(np.array(film.convert("RGB"))[::3, ::3], image.numpy())


def test_an_mp4_comes_back(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")
    images = (states(6, 1, 9, 7)[:, 0, :, :, :3] * 255).to(torch.uint8)
    save_film(tmp_path / "film.mp4", images, rate=12, scale=15)
    reader = ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    about = next(reader)
    assert (about["fps"], about["source_size"]) == (12, (106, 136)), "both edges are even"
    found = [np.frombuffer(frame, np.uint8).reshape(136, 106, 3)[7:135:15, 7:105:15] for frame in reader]
    assert len(found) == 6
    assert np.abs(np.array(found, dtype=float) - images.numpy()).mean() < 8


def test_no_film_is_named(tmp_path, monkeypatch):
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"film.avi; a film ends in .gif or .mp4"):
        save_film(tmp_path / "film.avi", images)
    for wrong in (images.float(), images[0], images[:0], images[..., :1]):
        with pytest.raises(ValueError, match=r"images has shape .*; it takes torch.uint8 \[T, rows, columns, 3\]"):
            save_film(tmp_path / "film.gif", wrong)
    with pytest.raises(ValueError, match="rate is 0"):
        save_film(tmp_path / "film.gif", images, rate=0)
    for name, package in (("PIL", "Pillow"), ("imageio_ffmpeg", "imageio-ffmpeg")):
        monkeypatch.setitem(sys.modules, name, None)
        ending = {"PIL": "gif", "imageio_ffmpeg": "mp4"}[name]
        with pytest.raises(ImportError, match=rf"film takes {package}; `pip install 'cube-kernels\[view\]'`"):
            save_film(tmp_path / f"film.{ending}", images)
    assert list(tmp_path.iterdir()) == []


def test_views_are_reached_by_name():
    assert view.frames is frames
    assert view.colors is colors
