"""The backward pass of one step, up to the adjoint of perception, which needs the percept gradients of all cells.

Nothing of the forward pass was kept but the state: a program computes its cells' inputs, hidden units and heads again.
Each program goes through its share of the blocks in order and adds up weight gradients in a part of its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

from cube_kernels.backends.triton.cell import activate, updated, updated_gradient
from cube_kernels.backends.triton.geometry import block_of_cells, load_rows, store_rows
from cube_kernels.backends.triton.launch import GRADIENT, Launcher
from cube_kernels.backends.triton.perception import load_neighbors
from cube_kernels.backends.triton.step import (
    Inputs,
    Numbers,
    Weights,
    computed,
    fires,
    head_tile,
    heads_of,
    held_inputs,
    hidden_chunk,
    hidden_tile,
    keeps,
    lives,
    load_drive,
    multiply,
    paces,
)
from cube_kernels.backends.triton.sums import add_to


@triton.jit
def accepted_gradient(inputs, at, y, g, numbers, plan: tl.constexpr):
    """The gradient of the proposed state ``y`` from that of the accepted one."""
    if plan.clamps:
        g = tl.where((y < numbers.low) | (y > numbers.high), 0.0, g)
    if inputs.retention is not None:
        g *= tl.load(inputs.retention + at.cell, mask=at.inside, other=0.0).to(tl.float32)[:, None]
    return g


@triton.jit
def add_tile(pointer, row, rows, columns, start, value, count: tl.constexpr, COUNT: tl.constexpr):
    """Adds ``[rows, COUNT]`` to ``count`` columns from ``start`` on of a matrix ``[rows, columns]`` of sums."""
    column = tl.arange(0, COUNT)
    mask = (row < rows)[:, None] & (column < count)[None, :]
    add_to(pointer + row[:, None] * columns + start + column[None, :], value, mask)


@triton.jit
def add_vector(pointer, index, count, value):
    add_to(pointer + index, value, index < count)


@triton.jit
def store_or_add(pointer, at, chunk, start, value, plan: tl.constexpr):
    """Puts percept gradients into their place, or adds them to those of the chunks before."""
    stride: tl.constexpr = plan.percepts * plan.channels
    later = at.inside & (tl.zeros_like(at.cell) + chunk > 0)
    value += load_rows(pointer, at.row, later, stride, start, plan.channels, plan.width)
    store_rows(pointer, at.row, at.inside, stride, start, value, plan.channels, plan.width)


@triton.jit
def add_weight_gradients(inputs, at, held, d_hidden, unit, part, plan: tl.constexpr):
    """From the gradient of some hidden units: adds those of their weights and biases."""
    storage: tl.constexpr = inputs.state.dtype.element_ty
    d_units = tl.trans(d_hidden)
    none = tl.zeros((unit.shape[0], plan.width), tl.float32)
    add_vector(part + plan.hidden_bias_start, unit, plan.hidden, tl.sum(d_hidden, axis=0))
    for k in tl.static_range(tl.constexpr(plan.tiles)):
        d_weight = multiply(d_units, held[k], none, storage, plan)
        add_tile(part, unit, plan.hidden, plan.inputs, k * plan.channels, d_weight, plan.channels, plan.width)
    if plan.gathers:
        for o in tl.range(0, plan.offsets):
            x = load_neighbors(inputs.state, at, inputs.offsets, o, plan)
            d_weight = multiply(d_units, x, none, storage, plan)
            start = (plan.tiles + o) * plan.channels
            add_tile(part, unit, plan.hidden, plan.inputs, start, d_weight, plan.channels, plan.width)
    if plan.drive:
        none_driven = tl.zeros((unit.shape[0], plan.drive_width), tl.float32)
        d_weight = multiply(d_units, load_drive(inputs, at, plan), none_driven, storage, plan)
        start = plan.inputs - plan.drive
        add_tile(part, unit, plan.hidden, plan.inputs, start, d_weight, plan.drive, plan.drive_width)


@triton.jit
def with_input_gradients(gradients, weights, d_hidden, unit, storage: tl.constexpr, plan: tl.constexpr):
    """The gradients of own state, weighted sums and drive, grown by the share of these hidden units."""
    own = gradients[0]
    if plan.own_state:
        weight = hidden_tile(weights, unit, 0, plan.channels, plan.width, plan)
        own = multiply(d_hidden, weight, own, storage, plan)
    grown = (own,)
    for p in tl.static_range(tl.constexpr(plan.filters)):
        weight = hidden_tile(weights, unit, (plan.own_tiles + p) * plan.channels, plan.channels, plan.width, plan)
        grown = grown + (multiply(d_hidden, weight, gradients[1 + p], storage, plan),)
    if plan.drive:
        weight = hidden_tile(weights, unit, plan.inputs - plan.drive, plan.drive, plan.drive_width, plan)
        grown = grown + (multiply(d_hidden, weight, gradients[1 + plan.filters], storage, plan),)
    return grown


@triton.jit
def add_gathered_gradients(
    percept_gradient, weights, at, d_hidden, unit, chunk, storage: tl.constexpr, plan: tl.constexpr
):
    """Those of the neighbors' states: too many to be held, so they grow in memory, chunk by chunk."""
    none = tl.zeros((at.cell.shape[0], plan.width), tl.float32)
    for o in tl.range(0, plan.offsets):
        weight = hidden_tile(weights, unit, (plan.tiles + o) * plan.channels, plan.channels, plan.width, plan)
        seen = multiply(d_hidden, weight, none, storage, plan)
        store_or_add(percept_gradient, at, chunk, o * plan.channels, seen, plan)


@triton.jit
def hidden_gradient(a, slope, d_heads, weights, unit, part, storage: tl.constexpr, plan: tl.constexpr):
    """The gradient of some hidden units, before the activation, from those of the heads; adds those of the heads'
    weights."""
    channel = tl.arange(0, plan.width)
    d_a = tl.zeros(a.shape, tl.float32)
    none = tl.zeros((plan.width, unit.shape[0]), tl.float32)
    for head in tl.static_range(tl.constexpr(plan.heads)):
        d_a = multiply(d_heads[head], head_tile(weights, head, unit, plan), d_a, storage, plan)
        d_weight = multiply(tl.trans(d_heads[head]), a, none, storage, plan)
        address = part + plan.head_weight_start + (head * plan.channels + channel)[:, None] * plan.hidden
        mask = (channel < plan.channels)[:, None] & (unit < plan.hidden)[None, :]
        add_to(address + unit[None, :], d_weight, mask)
    return d_a * slope


@triton.jit(do_not_specialize=["step", "drawn_step", "first_sample", "seed"])  # step 1 is no kernel of its own
def step_gradient_kernel(
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
    living,
    gradient,
    percept_gradient,
    drive_gradient,
    partials,
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
    """``gradient`` comes as that of the new states and leaves as that of the old ones, without what goes through
    perception: that is ``percept_gradient``. The drive's gradient and the partial sums grow."""
    inputs = Inputs(
        state, drive, write_mask, taken, retention, number, lifetime, offsets, pool, drive_stride, mask_stride
    )
    weights = Weights(bank, hidden_weight, hidden_bias, head_weight, head_bias, rate)
    numbers = Numbers(
        units, step, drawn_step, first_sample, seed, fire_threshold, pace, low, high, alive_threshold, dead_value
    )
    storage: tl.constexpr = state.dtype.element_ty
    channel = tl.arange(0, plan.width)
    part = partials + tl.program_id(0).to(tl.int64) * plan.weights
    for block in tl.range(tl.program_id(0), tl.cdiv(rows, BLOCK), tl.num_programs(0)):
        at = block_of_cells(block, rows, D, H, W, BLOCK)
        x = load_rows(state, at.row, at.inside, plan.channels, 0, plan.channels, plan.width)
        g = load_rows(gradient, at.row, at.inside, plan.channels, 0, plan.channels, plan.width)
        seeing, units_here = computed(inputs, at, numbers)
        held = held_inputs(inputs, weights, seeing, x, plan, BLOCK)
        if plan.heads_matter:
            delta, gate = heads_of(inputs, weights, seeing, held, units_here, plan, BLOCK, HIDDEN)
        else:
            delta = tl.zeros((BLOCK, plan.width), tl.float32)
            gate = delta

        fired = fires(inputs, at, numbers, plan)[:, None]
        kept = keeps(inputs, at, numbers, plan)
        through = tl.where(kept, 0.0, g)
        if plan.alive_after:
            lived = tl.load(living + at.row, mask=at.inside, other=0).to(tl.int32) != 0
            through = tl.where(lived[:, None], through, 0.0)
        elif plan.alive_before:
            through = tl.where(lives(state, at, pool, alive_threshold, plan)[:, None], through, 0.0)
        pace_each = paces(weights, numbers, plan)
        y = x
        if plan.clamps:
            y = tl.where(fired, updated(x, delta, gate, pace_each, plan), x)
        through = accepted_gradient(inputs, at, y, through, numbers, plan)
        d_x, d_delta, d_gate, d_pace = updated_gradient(x, delta, gate, pace_each, through, plan)
        moves = fired & (kept == 0) & (channel < plan.channels)[None, :]
        d_delta = tl.where(moves, d_delta, 0.0)
        d_gate = tl.where(moves, d_gate, 0.0)
        own = tl.where(kept, g, tl.where(fired, d_x, through))
        if rate is not None:
            d_rate = tl.sum(tl.where(moves, d_pace, 0.0), axis=0) * pace
            add_vector(part + plan.rate_start, channel, plan.channels, d_rate)

        d_heads = (d_delta, d_gate)
        if plan.hidden:
            for head in tl.static_range(tl.constexpr(plan.heads)):
                start = plan.head_bias_start + head * plan.channels
                add_vector(part + start, channel, plan.channels, tl.sum(d_heads[head], axis=0))
            gradients = (own,)
            for _ in tl.static_range(tl.constexpr(plan.filters)):
                gradients = gradients + (tl.zeros_like(own),)
            if plan.drive:
                driven = load_rows(drive_gradient, at.row, at.inside, plan.drive, 0, plan.drive, plan.drive_width)
                gradients = gradients + (driven,)
            if plan.gathers:  # their gradients of zero are yet to be stored
                units_here = units
            for chunk in tl.range(0, tl.cdiv(units_here, HIDDEN)):
                unit = chunk * HIDDEN + tl.arange(0, HIDDEN)
                a, slope = activate(hidden_chunk(inputs, weights, seeing, held, unit, plan), plan.activation)
                d_hidden = hidden_gradient(a, slope, d_heads, weights, unit, part, storage, plan)
                add_weight_gradients(inputs, seeing, held, d_hidden, unit, part, plan)
                gradients = with_input_gradients(gradients, weights, d_hidden, unit, storage, plan)
                if plan.gathers:
                    add_gathered_gradients(percept_gradient, weights, at, d_hidden, unit, chunk, storage, plan)
            own = gradients[0]
            stride: tl.constexpr = plan.percepts * plan.channels
            for p in tl.static_range(tl.constexpr(plan.filters)):
                start = p * plan.channels
                seen = gradients[1 + p]
                store_rows(percept_gradient, at.row, at.inside, stride, start, seen, plan.channels, plan.width)
            if plan.drive:
                driven = gradients[1 + plan.filters]
                store_rows(drive_gradient, at.row, at.inside, plan.drive, 0, driven, plan.drive, plan.drive_width)
        else:
            for head in tl.static_range(tl.constexpr(plan.heads)):
                store_or_add(percept_gradient, at, 0, head * plan.channels, d_heads[head], plan)
        store_rows(gradient, at.row, at.inside, plan.channels, 0, own, plan.channels, plan.width)


launch_step_gradient = Launcher(step_gradient_kernel, GRADIENT, changed=["gradient", "drive_gradient", "partials"])
