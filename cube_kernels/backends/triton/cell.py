"""The arithmetic of one cell, in float32: activations, squashes and updates with their derivatives.

Written with exp alone, which every target has to full accuracy: no vendor's library, no inline assembly.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tanh(s):
    e = tl.exp(-2.0 * tl.abs(s))
    t = (1.0 - e) / (1.0 + e)
    return tl.where(s < 0.0, -t, t)


@triton.jit
def activate(h, kind: tl.constexpr):
    """A hidden activation and its slope; gelu is the tanh form (Hendrycks and Gimpel, 2016, eq. 2)."""
    if kind == "relu":
        return tl.where(h < 0.0, 0.0, h), tl.where(h > 0.0, 1.0, 0.0)
    elif kind == "tanh":
        t = tanh(h)
        return t, 1.0 - t * t
    elif kind == "silu":
        s = tl.sigmoid(h)
        return h * s, s * (1.0 + h * (1.0 - s))
    else:
        tl.static_assert(kind == "gelu")
        root = 0.7978845608028654  # sqrt(2 / pi)
        cubic = 0.044715
        square = h * h
        t = tanh(root * h * (1.0 + cubic * square))
        half = 0.5 * (1.0 + t)
        return h * half, half + 0.5 * h * (1.0 - t * t) * root * (1.0 + 3.0 * cubic * square)


@triton.jit
def squash(delta, kind: tl.constexpr):
    """A squash and its slope."""
    if kind == "tanh":
        t = tanh(delta)
        return t, 1.0 - t * t
    else:
        tl.static_assert(kind == "identity")
        return delta, tl.full(delta.shape, 1.0, tl.float32)


@triton.jit
def updated(x, delta, gate, pace, plan: tl.constexpr):
    """The new state of a cell that was ``x``. Its pace: the step size or a leaky cell's rate, times the fire mask's
    rescaling."""
    target = squash(delta, plan.squash)[0]
    if plan.update == "residual":
        return x + pace * target
    elif plan.update == "replace":
        return target
    elif plan.update == "gated":
        return x + pace * tl.sigmoid(gate) * (target - x)
    else:
        tl.static_assert(plan.update == "leaky")
        return x + pace * (target - x)


@triton.jit
def updated_gradient(x, delta, gate, pace, g, plan: tl.constexpr):
    """The vector-Jacobian product of :func:`updated` with the gradient ``g`` of the new state: of the state, the
    change, the gate and a leaky cell's pace (the others' paces are constants)."""
    target, slope = squash(delta, plan.squash)
    none = tl.zeros(x.shape, tl.float32)
    if plan.update == "residual":
        return g, g * pace * slope, none, none
    elif plan.update == "replace":
        return none, g * slope, none, none
    elif plan.update == "gated":
        s = tl.sigmoid(gate)
        moved = g * pace
        return g - moved * s, moved * s * slope, moved * (target - x) * s * (1.0 - s), none
    else:
        tl.static_assert(plan.update == "leaky")
        return g - g * pace, g * pace * slope, none, g * (target - x)


@triton.jit
def clamped(v, low, high):
    v = tl.where(v < low, low, v)  # in this order a NaN stays a NaN
    return tl.where(v > high, high, v)
