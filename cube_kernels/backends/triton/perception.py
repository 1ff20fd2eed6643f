"""Perception, its adjoint and its filter gradient: each linear, each a gather.

The adjoint gathers with mirrored offsets. With mirrored and replicated boundaries a cell near a face is read in place
of those beyond it: so it gathers for itself and for each of its images. A program skips the images that none of its
cells has, and of each image the offsets that no cell reads it with.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from cube_kernels.backends.triton.geometry import (
    block_of_cells,
    entry,
    has_images,
    image_of,
    image_table,
    leads_back,
    load_rows,
    neighbor,
    offset_table,
    reach,
    store_rows,
)
from cube_kernels.backends.triton.launch import PERCEPTION, Launcher
from cube_kernels.backends.triton.plan import Plan, perception_plan
from cube_kernels.backends.triton.sums import add_to, part_count, sum_parts
from cube_kernels.lattice import Lattice, Offset


@triton.jit
def filter_taps(bank, p, o, plan: tl.constexpr):
    """``[width]``: what filter ``p`` weighs offset ``o`` with, for each channel."""
    channel = tl.arange(0, plan.width)
    address = bank + (p * plan.offsets + o) * plan.channels + channel
    return tl.load(address, mask=channel < plan.channels, other=0.0).to(tl.float32)


@triton.jit
def load_neighbors(state, at, offsets, o, plan: tl.constexpr):
    """``[BLOCK, width]``: the states at offset ``o``, zero where there is none."""
    row, there = neighbor(at, offsets, o, plan.boundary)
    return load_rows(state, row, there, plan.channels, 0, plan.channels, plan.width)


@triton.jit
def weighted_sums(state, bank, at, offsets, plan: tl.constexpr, BLOCK: tl.constexpr):
    """A tuple of ``[BLOCK, width]``, one for each filter, in one pass over the offsets."""
    sums = ()
    for _ in tl.static_range(tl.constexpr(plan.filters)):
        sums = sums + (tl.zeros((BLOCK, plan.width), tl.float32),)
    for o in tl.range(0, plan.offsets):
        x = load_neighbors(state, at, offsets, o, plan)
        added = ()
        for p in tl.static_range(tl.constexpr(plan.filters)):
            added = added + (sums[p] + x * filter_taps(bank, p, o, plan)[None, :],)
        sums = added
    return sums


@triton.jit
def perceive_kernel(state, bank, offsets, percepts, rows: tl.int64, D, H, W, plan: tl.constexpr, BLOCK: tl.constexpr):
    at = block_of_cells(tl.program_id(0), rows, D, H, W, BLOCK)
    stride: tl.constexpr = plan.percepts * plan.channels
    if not plan.gathers:
        sums = weighted_sums(state, bank, at, offsets, plan, BLOCK)
        for p in tl.static_range(tl.constexpr(plan.filters)):
            store_rows(percepts, at.row, at.inside, stride, p * plan.channels, sums[p], plan.channels, plan.width)
    else:
        for o in tl.range(0, plan.offsets):
            x = load_neighbors(state, at, offsets, o, plan)
            store_rows(percepts, at.row, at.inside, stride, o * plan.channels, x, plan.channels, plan.width)


@triton.jit
def with_readers(total, percepts, bank, readers, at, positions, beyond, shows, plan: tl.constexpr):
    """``total``, grown by what comes back from the readers of these positions, so far beyond the faces."""
    stride: tl.constexpr = plan.percepts * plan.channels
    around: tl.constexpr = "periodic" if plan.boundary == "periodic" else "walls"
    for o in tl.range(0, plan.offsets):
        d, h, w = entry(readers, o)
        if leads_back(beyond[0], d) & leads_back(beyond[1], h) & leads_back(beyond[2], w):
            reader, there = reach(at, shows, positions[0] + d, positions[1] + h, positions[2] + w, around)
            if not plan.gathers:
                for p in tl.static_range(tl.constexpr(plan.filters)):
                    g = load_rows(percepts, reader, there, stride, p * plan.channels, plan.channels, plan.width)
                    total += g * filter_taps(bank, p, o, plan)[None, :]
            else:
                total += load_rows(percepts, reader, there, stride, o * plan.channels, plan.channels, plan.width)
    return total


@triton.jit
def adjoint_kernel(
    percepts,
    bank,
    readers,
    images,
    image_count,
    gradient,
    rows: tl.int64,
    D,
    H,
    W,
    plan: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``gradient`` becomes the adjoint of perception, or with ``ADD`` grows by it."""
    at = block_of_cells(tl.program_id(0), rows, D, H, W, BLOCK)
    if ADD:
        total = load_rows(gradient, at.row, at.inside, plan.channels, 0, plan.channels, plan.width)
    else:
        total = tl.zeros((BLOCK, plan.width), tl.float32)
    for image in tl.range(0, image_count):
        positions, beyond, shows = image_of(at, images, image, plan.boundary)
        if tl.max(shows.to(tl.int32)) > 0:
            total = with_readers(total, percepts, bank, readers, at, positions, beyond, shows, plan)
    store_rows(gradient, at.row, at.inside, plan.channels, 0, total, plan.channels, plan.width)


@triton.jit
def filter_gradient_kernel(
    state, percepts, offsets, partials, rows: tl.int64, D, H, W, plan: tl.constexpr, BLOCK: tl.constexpr
):
    """Adds to this program's part ``[filters, offsets, channels]`` of the partial sums."""
    channel = tl.arange(0, plan.width)
    stride: tl.constexpr = plan.percepts * plan.channels
    part = partials + tl.program_id(0).to(tl.int64) * (plan.filters * plan.offsets * plan.channels)
    for block in tl.range(tl.program_id(0), tl.cdiv(rows, BLOCK), tl.num_programs(0)):
        at = block_of_cells(block, rows, D, H, W, BLOCK)
        for o in tl.range(0, plan.offsets):
            x = load_neighbors(state, at, offsets, o, plan)
            for p in tl.static_range(tl.constexpr(plan.filters)):
                g = load_rows(percepts, at.row, at.inside, stride, p * plan.channels, plan.channels, plan.width)
                address = part + (p * plan.offsets + o) * plan.channels + channel
                add_to(address, tl.sum(x * g, axis=0), channel < plan.channels)


_perceive = Launcher(perceive_kernel, PERCEPTION)
_adjoint = Launcher(adjoint_kernel, PERCEPTION, changed=["gradient"])
_filter_gradient = Launcher(filter_gradient_kernel, PERCEPTION, changed=["partials"])


def _seen(lattice: Lattice, plan: Plan) -> tuple[Offset, ...]:
    return lattice.neighbors if plan.gathers else lattice.offsets


def _offsets(lattice: Lattice, plan: Plan, x: Tensor, mirrored: bool = False) -> Tensor:
    return offset_table(lattice, _seen(lattice, plan), mirrored, device=x.device)


def perceive(x: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """See :func:`cube_kernels.perceive`."""
    plan, rows = perception_plan(lattice, None if filters is None else filters.shape[0]), x.shape[0] * lattice.cells
    percepts = x.new_empty((x.shape[0], *lattice.shape, plan.percepts * plan.channels))
    _perceive(rows, x, filters, _offsets(lattice, plan, x), percepts, rows, *lattice.shape, plan=plan)
    return percepts


def perceive_adjoint(percepts: Tensor, lattice: Lattice, filters: Tensor | None) -> Tensor:
    """The transpose of perception in the state: ``[B, D, H, W, P·C]`` to ``[B, D, H, W, C]``."""
    x = percepts.new_empty((percepts.shape[0], *lattice.state_shape))
    _gather_adjoint(percepts, lattice, filters, x, add=False)
    return x


def add_adjoint(percepts: Tensor, lattice: Lattice, filters: Tensor | None, gradient: Tensor) -> None:
    """Adds the transpose of perception to the gradient of a state, in place."""
    _gather_adjoint(percepts, lattice, filters, gradient, add=True)


def _gather_adjoint(percepts: Tensor, lattice: Lattice, filters: Tensor | None, x: Tensor, add: bool) -> None:
    plan, rows = perception_plan(lattice, None if filters is None else filters.shape[0]), x.shape[0] * lattice.cells
    images, count = None, 1
    if has_images(lattice.boundary):
        images = image_table(lattice, _seen(lattice, plan), device=x.device)
        count = len(images)
    tensors = (percepts, filters, _offsets(lattice, plan, x, mirrored=True), images, count, x)
    _adjoint(rows, *tensors, rows, *lattice.shape, plan=plan, ADD=add)


def filter_gradient(x: Tensor, lattice: Lattice, percepts: Tensor) -> Tensor:
    """The transpose of perception in the filters: ``[P, offsets, C]``."""
    partials = filter_partials(x, lattice, percepts.shape[-1] // lattice.channels)
    add_filter_gradient(x, lattice, percepts, partials)
    return sum_parts(partials, x.dtype)


def filter_partials(x: Tensor, lattice: Lattice, filters: int) -> Tensor:
    """Zeros for :func:`add_filter_gradient`: ``[parts, P, offsets, C]`` in float32."""
    shape = (filters, len(lattice.offsets), lattice.channels)
    return x.new_zeros((part_count(math.prod(shape), x.shape[0] * lattice.cells), *shape), dtype=torch.float32)


def add_filter_gradient(x: Tensor, lattice: Lattice, percepts: Tensor, partials: Tensor) -> None:
    """Adds the transpose of perception in the filters to the partial sums."""
    plan, rows = perception_plan(lattice, partials.shape[1]), x.shape[0] * lattice.cells
    tensors = (x, percepts, _offsets(lattice, plan, x), partials)
    _filter_gradient(rows, *tensors, rows, *lattice.shape, plan=plan, parts=partials.shape[0])
