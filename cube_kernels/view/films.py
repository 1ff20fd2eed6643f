"""Films of images."""

from __future__ import annotations

import os
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, uint8

from cube_kernels.value import check_positive, check_range

MISSING = "save_film: a {} film takes {}; `pip install 'cube-kernels[view]'` brings it"


def save_film(path: str | os.PathLike[str], images: Tensor, rate: float = 20.0, scale: int = 8) -> None:
    """Writes images as a film: a GIF, by Pillow, or an MP4 in H.264, by ``imageio-ffmpeg``, as the name ends.

    Args:
        path: ``.gif`` or ``.mp4``.
        images: uint8 ``[T, rows, columns, 3]``, as :func:`cube_kernels.view.frames` gives them.
        rate: images a second, at most 50. A GIF keeps whole hundredths of a second.
        scale: pixels along each edge of one of theirs.

    Raises:
        ValueError, TypeError: another ending, images of another shape or dtype, a rate or scale out of range.
        ImportError: the package that writes the film is not installed; the message names it.

    Example::

        view.save_film("grown.mp4", view.frames(grown), rate=30)
    """
    path = Path(path)
    rate = check_range("save_film", "rate", rate, 0.1, 50)
    scale = check_positive("save_film", "scale", scale)
    writers = {".gif": _write_gif, ".mp4": _write_mp4}
    if path.suffix not in writers:
        raise ValueError(f"save_film: path is {path}; a film ends in {' or '.join(writers)}")
    if images.ndim != 4 or images.shape[-1] != 3 or not len(images) or images.dtype != uint8:
        raise ValueError(
            f"save_film: images has shape {tuple(images.shape)} and {images.dtype}; it takes torch.uint8 "
            "[T, rows, columns, 3] with at least one image"
        )
    writers[path.suffix](path, images.repeat_interleave(scale, 1).repeat_interleave(scale, 2), rate)


def _write_gif(path: Path, images: Tensor, rate: float) -> None:
    try:
        from PIL import Image
    except ImportError as missing:
        raise ImportError(MISSING.format("GIF", "Pillow")) from missing
    first, *others = (Image.fromarray(image.numpy()) for image in images)
    first.save(path, save_all=True, append_images=others, duration=round(100 / rate) * 10, loop=0)


def _write_mp4(path: Path, images: Tensor, rate: float) -> None:
    try:
        import imageio_ffmpeg
    except ImportError as missing:
        raise ImportError(MISSING.format("MP4", "imageio-ffmpeg")) from missing
    rows, columns = images.shape[1:3]
    # H.264 halves the resolution of color, so that both edges are even.
    images = F.pad(images, (0, 0, 0, columns % 2, 0, rows % 2), value=255)
    size = (columns + columns % 2, rows + rows % 2)
    writer = imageio_ffmpeg.write_frames(path, size, fps=rate, quality=8, macro_block_size=2)
    writer.send(None)
    for image in images:
        writer.send(image.contiguous().numpy())
    writer.close()
