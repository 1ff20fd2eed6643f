"""A page on which a lattice can be turned, cut and watched over its steps."""

from __future__ import annotations

import base64
import gzip
import html
import os
from functools import cached_property
from pathlib import Path
from string import Template

import torch
from torch import Tensor

from cube_kernels.view.paint import Paint, colors, painted

FILES = Path(__file__).parent


class Page:
    """One sample over the steps, as one file of HTML that needs nothing else: voxels to turn with the mouse or a
    finger, a slider over the steps, one for each axis that cuts the lattice open, and one for the opacity from which on
    a cell is shown. It is drawn by three.js, which is inside.

    In Jupyter it shows itself, as the last line of a cell.

    Args:
        states: ``[T, D, H, W, C]``, of any dtype and on any device; the plane is a lattice of one slice.
        paint: what a state looks like; see :mod:`cube_kernels.view`.

    Raises:
        ValueError: states of another shape.

    Example::

        view.Page(layer(x, steps=60, seed=7, trajectory_every=1).trajectory[:, 0]).save("grown.html")
    """

    def __init__(self, states: Tensor, paint: Paint = colors) -> None:
        seen = painted("Page", states, paint)
        opacity = seen[..., 3:]
        color = torch.where(opacity > 0, seen[..., :3] / opacity, 0)
        self._voxels = torch.cat([color, opacity], dim=-1).mul(255).round().to(torch.uint8)

    @cached_property
    def html(self) -> str:
        """The file's text."""
        steps, *shape, _ = self._voxels.shape
        packed = gzip.compress(self._voxels.contiguous().numpy().tobytes(), mtime=0)
        return Template((FILES / "page.html").read_text(encoding="utf-8")).substitute(
            library=(FILES / "three" / "three.min.js").read_text(encoding="utf-8"),
            steps=steps,
            shape=shape,
            voxels=base64.b64encode(packed).decode(),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file."""
        Path(path).write_text(self.html, encoding="utf-8")

    def _repr_html_(self) -> str:
        """For notebooks: the page within a frame of its own, so that neither knows of the other."""
        inside = html.escape(self.html, quote=True)
        return f'<iframe srcdoc="{inside}" style="width: 100%; height: 640px; border: 0"></iframe>'
