"""One step of every cell: perception, hidden layer, heads, update and masks in one kernel that writes nothing but the
new state.

A program takes a block of cells. Own states and weighted sums are computed once and held; the hidden layer goes by in
chunks of ``HIDDEN`` units, so that any width fits. Gathered neighbors are read again for each chunk: held, they would
be as many tiles as there are offsets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from cube_kernels.backends.triton.cell import activate, clamped, updated
from cube_kernels.backends.triton.geometry import Cells, block_of_cells, load_rows, neighbor, store_rows
from cube_kernels.backends.triton.launch import STEP, Launcher
from cube_kernels.backends.triton.perception import load_neighbors, weighted_sums


class Inputs(NamedTuple):
    """What a step reads, beside the weights. The sample strides of drive and mask are 0 where the batch shares them."""

    state: Any  # [B, cells, C]
    drive: Any  # [B or 1, cells, drive]
    write_mask: Any  # [B or 1, cells], bytes
    taken: Any  # [B]: samples take steps below theirs; None: all steps
    retention: Any  # [cells], of the absorbing boundary
    number: Any  # [cells]: each cell's in the whole lattice; None: its own
    lifetime: Any  # [cells]: how many steps of the call compute it; None: all
    offsets: Any  # of perception
    pool: Any  # offsets over which life is measured
    drive_stride: Any
    mask_stride: Any


class Weights(NamedTuple):
    """As :class:`cube_kernels.automaton.StepWeights`."""

    bank: Any
    hidden_weight: Any
    hidden_bias: Any
    head_weight: Any
    head_bias: Any
    rate: Any


class Numbers(NamedTuple):
    """The rule's numbers, and which step this is."""

    units: Any  # of the hidden layer: no constant, so that the loop over their chunks is not unrolled
    step: Any
    drawn_step: Any  # as the fire mask counts
    first_sample: Any  # likewise; None for 0, which costs no register
    seed: Any
    fire_threshold: Any
    pace: Any
    low: Any
    high: Any
    alive_threshold: Any
    dead_value: Any


@triton.jit
def multiply(left, right, start, storage: tl.constexpr, plan: tl.constexpr):
    """``start + left @ right``, of operands rounded to the storage, as tensor cores take them."""
    left = left.to(storage)
    right = right.to(storage)
    if plan.product == "widened":
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, start, input_precision="tf32" if plan.product == "tf32" else "ieee")


@triton.jit
def load_vector(pointer, index, count):
    return tl.load(pointer + index, mask=index < count, other=0.0).to(tl.float32)


@triton.jit
def hidden_tile(weights, unit, start, count: tl.constexpr, COUNT: tl.constexpr, plan: tl.constexpr):
    """``[HIDDEN, COUNT]``: what these units weigh ``count`` inputs from ``start`` on with."""
    row = unit.to(tl.int64)
    return load_rows(weights.hidden_weight, row, unit < plan.hidden, plan.inputs, start, count, COUNT)


@triton.jit
def head_tile(weights, head, unit, plan: tl.constexpr):
    """``[width, HIDDEN]``: what a head weighs these units with."""
    channel = tl.arange(0, plan.width)
    address = (head * plan.channels + channel)[:, None] * plan.hidden + unit[None, :]
    mask = (channel < plan.channels)[:, None] & (unit < plan.hidden)[None, :]
    return tl.load(weights.head_weight + address, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_drive(inputs, at, plan: tl.constexpr):
    """``[BLOCK, drive_width]``."""
    row = at.sample * inputs.drive_stride + at.cell
    return load_rows(inputs.drive, row, at.inside, plan.drive, 0, plan.drive, plan.drive_width)


@triton.jit
def held_inputs(inputs, weights, at, x, plan: tl.constexpr, BLOCK: tl.constexpr):
    """A tuple of ``[BLOCK, width]``: own state and weighted sums."""
    held = ()
    if plan.own_state:
        held = (x,)
    if not plan.gathers:
        held = held + weighted_sums(inputs.state, weights.bank, at, inputs.offsets, plan, BLOCK)
    return held


@triton.jit
def hidden_chunk(inputs, weights, at, held, unit, plan: tl.constexpr):
    """``[BLOCK, HIDDEN]``: these units of the hidden layer, before the activation."""
    storage: tl.constexpr = inputs.state.dtype.element_ty
    sums = tl.zeros((at.cell.shape[0], unit.shape[0]), tl.float32)
    sums += load_vector(weights.hidden_bias, unit, plan.hidden)[None, :]
    for k in tl.static_range(tl.constexpr(plan.tiles)):
        weight = hidden_tile(weights, unit, k * plan.channels, plan.channels, plan.width, plan)
        sums = multiply(held[k], tl.trans(weight), sums, storage, plan)
    if plan.gathers:
        for o in tl.range(0, plan.offsets):
            x = load_neighbors(inputs.state, at, inputs.offsets, o, plan)
            weight = hidden_tile(weights, unit, (plan.tiles + o) * plan.channels, plan.channels, plan.width, plan)
            sums = multiply(x, tl.trans(weight), sums, storage, plan)
    if plan.drive:
        weight = hidden_tile(weights, unit, plan.inputs - plan.drive, plan.drive, plan.drive_width, plan)
        sums = multiply(load_drive(inputs, at, plan), tl.trans(weight), sums, storage, plan)
    return sums


@triton.jit
def heads_with(heads, hidden, weights, unit, storage: tl.constexpr, plan: tl.constexpr):
    """The heads, ``(Δ, g)`` of ``[BLOCK, width]`` each, with the share of these hidden units; Δ alone twice where
    there is no gate."""
    a = activate(hidden, plan.activation)[0]
    delta = multiply(a, tl.trans(head_tile(weights, 0, unit, plan)), heads[0], storage, plan)
    gate = delta
    if plan.heads == 2:
        gate = multiply(a, tl.trans(head_tile(weights, 1, unit, plan)), heads[1], storage, plan)
    return delta, gate


@triton.jit
def head_biases(weights, plan: tl.constexpr, BLOCK: tl.constexpr):
    """The heads before any hidden unit."""
    channel = tl.arange(0, plan.width)
    none = tl.zeros((BLOCK, plan.width), tl.float32)
    delta = none + load_vector(weights.head_bias, channel, plan.channels)[None, :]
    gate = delta
    if plan.heads == 2:
        gate = none + load_vector(weights.head_bias + plan.channels, channel, plan.channels)[None, :]
    return delta, gate


@triton.jit
def heads_of(inputs, weights, at, held, units, plan: tl.constexpr, BLOCK: tl.constexpr, HIDDEN: tl.constexpr):
    """The heads' values; without a hidden layer they are the percepts."""
    if plan.hidden:
        storage: tl.constexpr = inputs.state.dtype.element_ty
        delta, gate = head_biases(weights, plan, BLOCK)
        for chunk in tl.range(0, tl.cdiv(units, HIDDEN)):
            unit = chunk * HIDDEN + tl.arange(0, HIDDEN)
            hidden = hidden_chunk(inputs, weights, at, held, unit, plan)
            delta, gate = heads_with((delta, gate), hidden, weights, unit, storage, plan)
        return delta, gate
    else:
        return held[0], held[plan.heads - 1]


@triton.jit
def paces(weights, numbers, plan: tl.constexpr):
    """``[1, width]``: each channel's pace."""
    pace = tl.zeros((plan.width,), tl.float32) + numbers.pace
    if weights.rate is not None:
        pace *= load_vector(weights.rate, tl.arange(0, plan.width), plan.channels)
    return pace[None, :]


@triton.jit
def runs(inputs, at, numbers):
    """Which cells this step computes: of samples that take it, and not beside a cut face."""
    running = at.inside
    if inputs.taken is not None:
        running = running & (tl.load(inputs.taken + at.sample, mask=at.inside, other=0).to(tl.int64) > numbers.step)
    if inputs.lifetime is not None:
        running = running & (tl.load(inputs.lifetime + at.cell, mask=at.inside, other=0).to(tl.int32) > numbers.step)
    return running


@triton.jit
def computed(inputs, at, numbers):
    """The block with those cells alone that the step computes: the others see nothing, since beside a cut face it might
    overflow, and a gradient of zero be NaN. And how many hidden units there are to compute: none where no cell is."""
    if inputs.lifetime is None:
        return at, numbers.units
    else:
        here = runs(inputs, at, numbers)
        units = tl.where(tl.max(here.to(tl.int32)) > 0, numbers.units, 0)
        return Cells(at.sample, at.cell, at.row, here, at.d, at.h, at.w, at.D, at.H, at.W), units


@triton.jit
def fires(inputs, at, numbers, plan: tl.constexpr):
    """Which cells the fire mask lets change: see :mod:`cube_kernels.philox`."""
    if plan.fires:
        none = tl.zeros_like(at.cell)
        step = none + numbers.drawn_step
        sample = at.sample
        if numbers.first_sample is not None:
            sample += numbers.first_sample
        if inputs.number is None:
            words = tl.philox(numbers.seed, at.cell // 4, step, sample.to(tl.int32), none)
            word = at.cell % 4
        else:
            number = tl.load(inputs.number + at.cell, mask=at.inside, other=0).to(tl.int64)
            block = number // 4
            words = tl.philox(numbers.seed, block.to(tl.int32), step, sample.to(tl.int32), (block >> 32).to(tl.int32))
            word = (number % 4).to(tl.int32)
        drawn = tl.where(word < 2, tl.where(word == 0, words[0], words[1]), tl.where(word == 2, words[2], words[3]))
        return at.inside & (drawn.to(tl.int64) < numbers.fire_threshold)
    else:
        return at.inside


@triton.jit
def keeps(inputs, at, numbers, plan: tl.constexpr):
    """``[BLOCK, width]``: which numbers stay as they are, whatever happens to the cell."""
    channel = tl.arange(0, plan.width)
    kept = runs(inputs, at, numbers) == 0
    if inputs.write_mask is not None:
        row = at.sample * inputs.mask_stride + at.cell
        kept = kept | (tl.load(inputs.write_mask + row, mask=at.inside, other=0).to(tl.int32) == 0)
    fixed = channel < 0
    for channel_fixed in tl.static_range(tl.constexpr(plan.immutable_count)):
        fixed = fixed | (channel == plan.immutable[channel_fixed])
    return kept[:, None] | fixed[None, :]


@triton.jit
def lives(state, at, pool, threshold, plan: tl.constexpr):
    """Which cells have a neighbor, or are one, whose alive channel exceeds the threshold."""
    living = at.cell < 0
    for o in tl.range(0, plan.pool_offsets):
        row, there = neighbor(at, pool, o, plan.boundary)
        address = state + row * plan.channels + plan.alive_channel
        living = living | (tl.load(address, mask=there, other=float("-inf")).to(tl.float32) > threshold)
    return living


@triton.jit
def accepted(inputs, at, y, numbers, plan: tl.constexpr):
    """A proposed state as the clamp and the absorbing boundary let it pass."""
    if plan.clamps:
        y = clamped(y, numbers.low, numbers.high)
    if inputs.retention is not None:
        y *= tl.load(inputs.retention + at.cell, mask=at.inside, other=0.0).to(tl.float32)[:, None]
    return y


@triton.jit(do_not_specialize=["step", "drawn_step", "first_sample", "seed"])  # step 1 is no kernel of its own
def step_kernel(
    state,
    drive,
    write_mask,
    taken,
    retention,
    number,
    lifetime,
    offsets,
    pool,
    bank,
    hidden_weight,
    hidden_bias,
    head_weight,
    head_bias,
    rate,
    new,
    drive_stride: tl.int64,
    mask_stride: tl.int64,
    units: tl.int32,
    step: tl.int32,
    drawn_step: tl.int32,
    first_sample,
    seed: tl.int64,
    fire_threshold: tl.int64,
    pace,
    low,
    high,
    alive_threshold,
    dead_value,
    rows: tl.int64,
    D,
    H,
    W,
    plan: tl.constexpr,
    BLOCK: tl.constexpr,
    HIDDEN: tl.constexpr,
):
    """The new states of a block of cells; where life is measured after the update too, before death."""
    inputs = Inputs(
        state, drive, write_mask, taken, retention, number, lifetime, offsets, pool, drive_stride, mask_stride
    )
    weights = Weights(bank, hidden_weight, hidden_bias, head_weight, head_bias, rate)
    numbers = Numbers(
        units, step, drawn_step, first_sample, seed, fire_threshold, pace, low, high, alive_threshold, dead_value
    )
    at = block_of_cells(tl.program_id(0), rows, D, H, W, BLOCK)
    x = load_rows(state, at.row, at.inside, plan.channels, 0, plan.channels, plan.width)
    seeing, units_here = computed(inputs, at, numbers)
    held = held_inputs(inputs, weights, seeing, x, plan, BLOCK)
    delta, gate = heads_of(inputs, weights, seeing, held, units_here, plan, BLOCK, HIDDEN)
    y = tl.where(
        fires(inputs, at, numbers, plan)[:, None], updated(x, delta, gate, paces(weights, numbers, plan), plan), x
    )
    y = accepted(inputs, at, y, numbers, plan)
    if plan.alive_before and not plan.alive_after:
        y = tl.where(lives(state, at, pool, alive_threshold, plan)[:, None], y, dead_value)
    y = tl.where(keeps(inputs, at, numbers, plan), x, y)
    store_rows(new, at.row, at.inside, plan.channels, 0, y, plan.channels, plan.width)


launch_step = Launcher(step_kernel, STEP)
