"""Fixed filters by name: constants of finite differences, for perception without training.

Each is written for the axes that the lattice's neighborhood spans, so that a planar neighborhood gets the filter
of the plane. Spacing is one cell.

=============  ======================================================================================
``identity``   the cell itself
``sobel_d``    ∂/∂D: ``[-1, 0, 1]/2`` along D, smoothed by ``[1, 2, 1]/4`` along every other spanned axis
               (Sobel and Feldman, 1968); exact for linear states
``sobel_h``    the same along H
``sobel_w``    the same along W
``laplacian``  the sum of the second differences ``[1, -2, 1]`` along the spanned axes; exact for quadratic states
=============  ======================================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cube_kernels.lattice import Lattice, Offset
from cube_kernels.tables import constant
from cube_kernels.value import check_choice

Taps = dict[Offset, float]


def _on_axis(axis: int, shift: int) -> Offset:
    d, h, w = (shift if a == axis else 0 for a in range(3))
    return d, h, w


def _identity(spanned: list[int]) -> Taps:
    return {(0, 0, 0): 1.0}


def _sobel(axis: int, spanned: list[int]) -> Taps:
    smoothing = {-1: 0.25, 0: 0.5, 1: 0.25}
    taps: Taps = {}
    for d, h, w in itertools.product(*(smoothing if a in spanned or a == axis else (0,) for a in range(3))):
        offset = (d, h, w)
        value = offset[axis] / 2
        for other in spanned:
            if other != axis:
                value *= smoothing[offset[other]]
        if value:
            taps[offset] = value
    return taps


def _laplacian(spanned: list[int]) -> Taps:
    faces = {_on_axis(axis, shift): 1.0 for axis in spanned for shift in (-1, 1)}
    return {(0, 0, 0): -2.0 * len(spanned), **faces}


FILTERS: dict[str, Callable[[list[int]], Taps]] = {
    "identity": _identity,
    "sobel_d": partial(_sobel, 0),
    "sobel_h": partial(_sobel, 1),
    "sobel_w": partial(_sobel, 2),
    "laplacian": _laplacian,
}


def fixed_filters(
    names: tuple[str, ...], lattice: Lattice, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Tensor:
    """The named filters as a bank ``[len(names), offsets, C]`` for :func:`cube_kernels.perceive`, the same for
    every channel.

    Raises:
        ValueError: an unknown name, or a filter with a tap that the lattice's neighborhood lacks; the message
            names both.
    """
    bank = filter_bank(tuple(names), lattice, device=torch.device("cpu"))
    return bank.to(device, dtype or torch.get_default_dtype(), copy=True)


@constant
def filter_bank(names: tuple[str, ...], lattice: Lattice) -> np.ndarray[Any, Any]:
    """:func:`fixed_filters` in float64."""
    spanned = [axis for axis, reach in enumerate(lattice.reach) if reach]
    places = {offset: place for place, offset in enumerate(lattice.offsets)}
    bank = np.zeros((len(names), len(places), lattice.channels))
    for row, name in zip(bank, names, strict=True):
        check_choice("fixed_filters", "name", name, FILTERS)
        for offset, value in FILTERS[name](spanned).items():
            if offset not in places:
                raise ValueError(
                    f"fixed_filters: {name!r} has a tap at {offset}, which the neighborhood {lattice.neighborhood!r} "
                    "lacks; 'moore' holds the taps of every fixed filter"
                )
            row[places[offset]] = value
    return bank
