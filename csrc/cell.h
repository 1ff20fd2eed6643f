// The arithmetic of one cell, written once for any value type V that has + - * / and these functions:
//   broadcast<V>(number), scaled(v, number), hyperbolic_tangent(v), logistic(v),
//   select_negative(v, a, b) = v < 0 ? a : b.
// A target supplies them for its vectors (or scalars), and says by CUBE_CELL_FUNCTION where these functions run.
#pragma once
#include "plan.h"

#ifndef CUBE_CELL_FUNCTION
#define CUBE_CELL_FUNCTION inline
#endif

namespace cube {
namespace {

template <class V>
struct ValueAndSlope {
  V value;
  V slope;
};

// Hidden activations; gelu is the tanh form (Hendrycks and Gimpel, 2016, eq. 2).
template <Activation kind, class V>
CUBE_CELL_FUNCTION ValueAndSlope<V> activate(V h) {
  const V one = broadcast<V>(1);
  if constexpr (kind == Activation::relu) {
    return {select_negative(h, V{}, h), select_negative(h, V{}, select_negative(-h, one, V{}))};
  } else if constexpr (kind == Activation::tanh) {
    const V t = hyperbolic_tangent(h);
    return {t, one - t * t};
  } else if constexpr (kind == Activation::silu) {
    const V s = logistic(h);
    return {h * s, s * (one + h * (one - s))};
  } else {
    static_assert(kind == Activation::gelu);
    const auto root = 0.79788456080286535588;  // sqrt(2 / pi)
    const auto cubic = 0.044715;
    const V square = h * h;
    const V t = hyperbolic_tangent(scaled(h, root) * (one + scaled(square, cubic)));
    const V half = scaled(one + t, 0.5);
    return {h * half, half + scaled(h, 0.5) * (one - t * t) * scaled(one + scaled(square, 3 * cubic), root)};
  }
}

template <Squash kind, class V>
CUBE_CELL_FUNCTION ValueAndSlope<V> squash(V delta) {
  const V one = broadcast<V>(1);
  if constexpr (kind == Squash::tanh) {
    const V t = hyperbolic_tangent(delta);
    return {t, one - t * t};
  } else {
    static_assert(kind == Squash::identity);
    return {delta, one};
  }
}

// The new state of a cell from its state x, the heads' outputs and its pace: the step size, a leaky cell's rate,
// times the fire mask.
template <Update kind, Squash squash_kind, class V>
CUBE_CELL_FUNCTION V updated(V x, V delta, V gate, V pace) {
  const V target = squash<squash_kind>(delta).value;
  if constexpr (kind == Update::residual) {
    return x + pace * target;
  } else if constexpr (kind == Update::replace) {
    return target;
  } else if constexpr (kind == Update::gated) {
    return x + pace * logistic(gate) * (target - x);
  } else {
    static_assert(kind == Update::leaky);
    return x + pace * (target - x);
  }
}

template <class V>
struct UpdateGradient {
  V state;
  V delta;
  V gate;
  V pace;
};

// The vector-Jacobian product of `updated` with the gradient g of the new state. The pace's is that of a leaky
// cell; the others' paces are constants.
template <Update kind, Squash squash_kind, class V>
CUBE_CELL_FUNCTION UpdateGradient<V> updated_gradient(V x, V delta, V gate, V pace, V g) {
  const V one = broadcast<V>(1);
  const auto target = squash<squash_kind>(delta);
  if constexpr (kind == Update::residual) {
    return {g, g * pace * target.slope, V{}, V{}};
  } else if constexpr (kind == Update::replace) {
    return {V{}, g * target.slope, V{}, V{}};
  } else if constexpr (kind == Update::gated) {
    const V s = logistic(gate), moved = g * pace;
    return {g - moved * s, moved * s * target.slope, moved * (target.value - x) * s * (one - s), V{}};
  } else {
    static_assert(kind == Update::leaky);
    return {g - g * pace, g * pace * target.slope, V{}, g * (target.value - x)};
  }
}

}  // namespace
}  // namespace cube
