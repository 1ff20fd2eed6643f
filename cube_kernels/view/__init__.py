"""To see what grows: pictures, films, and a page on which a lattice in space can be turned.

::

    grown = layer(x, steps=100, seed=7, trajectory_every=1).trajectory[:, 0]  # [T, D, H, W, C]: one sample
    view.save_film("grown.gif", view.frames(grown))
    view.Page(grown).save("grown.html")  # in a notebook, a Page as the last line of a cell shows itself

What a state looks like is a function ``[..., C] → [..., 4]`` of floats in [0, 1]: color times opacity, and opacity.
:func:`colors` is that of cells that grow, :func:`shade` makes one of a single channel, and any of one's own will do.
"""

from cube_kernels.view.films import save_film
from cube_kernels.view.images import frames
from cube_kernels.view.page import Page
from cube_kernels.view.paint import Paint, colors, shade

__all__ = ["Page", "Paint", "colors", "frames", "save_film", "shade"]
