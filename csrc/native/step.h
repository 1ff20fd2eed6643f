// One step of a range of cells, and its backward pass.
#pragma once
#include "masks.h"
#include "product_bf16.h"
#include "rule.h"

#include "../cell.h"  // after the vectors it computes with

namespace cube {
namespace {

template <class T>
bool multiplies_bf16(const Schedule& schedule) {
  return has_bf16_products && std::is_same_v<T, float> && schedule.storage == Storage::bfloat16 &&
         schedule.bf16_products;
}

// Whether states here have the numbers and the strides of the caller's in this storage.
template <class T>
bool lies_like(Storage storage, const Plan& plan, const Layout<T>& layout) {
  return storage_bytes(storage) == static_cast<int64_t>(sizeof(T)) && layout.stride == plan.channels;
}

// Everything about a call that its threads share and do not write.
template <class T>
struct Task {
  const Plan& plan;
  const Layout<T>& layout;
  const PackedWeights<T>& weights;
  Storage storage;
  bool half;  // numbers are stored in half the width
  bool bf16;  // and multiplied in it
  // A new state is what the update gives: no clamp, fading, rounding or immutable channel, nor padding, which must
  // stay zero where the channels are infinite or NaN.
  bool plain;

  Task(const Plan& plan, const Layout<T>& layout, const PackedWeights<T>& weights, const Schedule& schedule)
      : plan(plan),
        layout(layout),
        weights(weights),
        storage(schedule.storage),
        half(storage_bytes(storage) < static_cast<int64_t>(sizeof(T))),
        bf16(multiplies_bf16<T>(schedule)),
        plain(!plan.clamps && plan.retention == nullptr && lies_like<T>(storage, plan, layout)) {
    for (int64_t c = 0; c < plan.channels; ++c) plain = plain && plan.mutable_channels[c];
  }
};

// What a block of cells computes on its way: rows of the layout's sizes.
template <class T>
struct Rows {
  T* inputs;
  T* hidden;  // before the activation
  T* heads;
};

// One thread's scratch. A block's rows stay in the first cache levels.
template <class T>
struct Scratch {
  Scratch(const Plan& plan, const Layout<T>& layout, bool backward)
      : neighbors(plan.offset_count),
        readers(backward ? plan.offset_count : 0),
        cells(plan.cells),
        inputs(block_cells * layout.inputs),
        hidden(block_cells * layout.hidden),
        heads(block_cells * layout.heads),
        activated(block_cells * layout.hidden),
        narrow_rows(block_cells * larger(layout.inputs, layout.hidden)),
        slopes(backward ? block_cells * layout.hidden : 0),
        head_gradient(backward ? block_cells * layout.heads : 0),
        hidden_gradient(backward ? block_cells * layout.hidden : 0),
        input_gradient(backward ? block_cells * layout.inputs : 0) {}
  Rows<T> rows() const { return {inputs, hidden, heads}; }
  Buffer<NeighborRow> neighbors;
  Buffer<ReaderRows> readers;
  Buffer<int64_t> cells;  // those that compute a change, of the range at hand
  Buffer<T> inputs, hidden, heads;
  Buffer<T> activated;
  Buffer<uint16_t> narrow_rows;  // the left operand of a product in bfloat16
  Buffer<T> slopes;              // of the activation
  Buffer<T> head_gradient, hidden_gradient, input_gradient;
};

// Activations, rounded to the storage, and their slopes.
template <class T, Activation kind, bool with_slopes>
void activate_all(Storage storage, const T* hidden, T* activated, T* slopes, int64_t count) {
  for (int64_t i = 0; i < count; i += lanes<T>) {
    const auto a = activate<kind>(load(hidden + i));
    store(activated + i, rounded(storage, a.value));
    if constexpr (with_slopes) store(slopes + i, a.slope);
  }
}

template <auto v>
struct Constant {
  static constexpr auto value = v;
};

template <class T, bool with_slopes>
void activate_all(const Plan& plan, Storage storage, const T* hidden, T* activated, T* slopes, int64_t count) {
  const auto with = [&](auto kind) {
    activate_all<T, kind.value, with_slopes>(storage, hidden, activated, slopes, count);
  };
  switch (plan.activation) {
    case Activation::relu: return with(Constant<Activation::relu>{});
    case Activation::gelu: return with(Constant<Activation::gelu>{});
    case Activation::silu: return with(Constant<Activation::silu>{});
    case Activation::tanh: return with(Constant<Activation::tanh>{});
  }
}

// Calls body(Constant<update>, Constant<squash>) for the plan's pair.
template <class Body>
void with_update(const Plan& plan, Body&& body) {
  const auto with_squash = [&](auto update) {
    switch (plan.squash) {
      case Squash::identity: return body(update, Constant<Squash::identity>{});
      case Squash::tanh: return body(update, Constant<Squash::tanh>{});
    }
  };
  switch (plan.update) {
    case Update::residual: return with_squash(Constant<Update::residual>{});
    case Update::replace: return with_squash(Constant<Update::replace>{});
    case Update::gated: return with_squash(Constant<Update::gated>{});
    case Update::leaky: return with_squash(Constant<Update::leaky>{});
  }
}

// The hidden layer of the listed cells, before its activation, and its input; for a bare stencil the heads.
template <class T>
void evaluate_hidden(const Task<T>& task, const T* state, const T* drive, const int64_t* cells, int64_t count,
                     const Scratch<T>& scratch, const Rows<T>& rows) {
  const Plan& plan = task.plan;
  const Layout<T>& layout = task.layout;
  if (plan.hidden == 0) {
    return perceive<T>(plan, state, layout.stride, task.weights.bank, cells, count, scratch.neighbors, rows.heads,
                       layout.heads);
  }
  for (int64_t i = 0; i < count; ++i) {
    T* to = rows.inputs + i * layout.inputs;
    if (plan.own_state) std::memcpy(to, state + cells[i] * layout.stride, layout.stride * sizeof(T));
    if (plan.drive > 0) {
      T* const at = to + layout.own + layout.percepts;
      std::memcpy(at, drive + cells[i] * plan.drive, plan.drive * sizeof(T));
      std::memset(at + plan.drive, 0, (layout.inputs - layout.own - layout.percepts - plan.drive) * sizeof(T));
    }
  }
  perceive<T>(plan, state, layout.stride, task.weights.bank, cells, count, scratch.neighbors, rows.inputs + layout.own,
              layout.inputs);
  for (int64_t i = 0; task.half && i < count * layout.inputs; i += lanes<T>) {
    store(rows.inputs + i, rounded(task.storage, load(rows.inputs + i)));
  }
  if constexpr (has_bf16_products && std::is_same_v<T, float>) {
    if (task.bf16) {
      narrow(rows.inputs, count * layout.inputs, scratch.narrow_rows);
      return product_bf16(scratch.narrow_rows, layout.inputs, task.weights.narrow_to_hidden, rows.hidden, layout.hidden,
                          count, layout.hidden, layout.inputs, task.weights.hidden_bias);
    }
  }
  product<T>(rows.inputs, layout.inputs, 1, task.weights.to_hidden, layout.hidden, rows.hidden, layout.hidden, count,
             layout.hidden, layout.inputs, Start::bias, task.weights.hidden_bias);
}

// The heads of cells whose activations lie in the scratch.
template <class T>
void evaluate_heads(const Task<T>& task, int64_t count, const Scratch<T>& scratch, T* heads) {
  const Layout<T>& layout = task.layout;
  if constexpr (has_bf16_products && std::is_same_v<T, float>) {
    if (task.bf16) {
      narrow(scratch.activated, count * layout.hidden, scratch.narrow_rows);
      return product_bf16(scratch.narrow_rows, layout.hidden, task.weights.narrow_to_heads, heads, layout.heads, count,
                          layout.heads, layout.hidden, task.weights.head_bias);
    }
  }
  product<T>(scratch.activated, layout.hidden, 1, task.weights.to_heads, layout.heads, heads, layout.heads, count,
             layout.heads, task.plan.hidden, Start::bias, task.weights.head_bias);
}

template <class V>
inline V clamped(V v, double low, double high) {
  const V bottom = broadcast<V>(static_cast<typename ElementOf<V>::type>(low));
  const V top = broadcast<V>(static_cast<typename ElementOf<V>::type>(high));
  v = v < bottom ? bottom : v;  // in this order a NaN stays a NaN
  return v > top ? top : v;
}

// The new state of channels c.. of a cell that was x and proposes y.
template <class T>
inline Vector<T> accepted(const Task<T>& task, Vector<T> x, Vector<T> y, int64_t cell, int64_t c) {
  if (task.plain) return y;
  const Plan& plan = task.plan;
  if (plan.clamps) y = clamped(y, plan.low, plan.high);
  if (plan.retention != nullptr) y *= static_cast<T>(plan.retention[cell]);
  return load(task.weights.changes + c) > Vector<T>{} ? rounded(task.storage, y) : x;
}

// The gradient of y in `accepted`, from that of the new state; that of x is g - (g where channels change).
template <class T>
inline Vector<T> accepted_gradient(const Task<T>& task, Vector<T> y, Vector<T> g, int64_t cell, int64_t c) {
  if (task.plain) return g;
  const Plan& plan = task.plan;
  if (plan.clamps) {
    const auto low = broadcast<Vector<T>>(static_cast<T>(plan.low));
    const auto high = broadcast<Vector<T>>(static_cast<T>(plan.high));
    g = y < low ? Vector<T>{} : g;
    g = y > high ? Vector<T>{} : g;
  }
  if (plan.retention != nullptr) g *= static_cast<T>(plan.retention[cell]);
  return load(task.weights.changes + c) > Vector<T>{} ? g : Vector<T>{};
}

// Calls visit(cell) for the cells of the range that are not in the ascending list.
template <class Visit>
void for_each_other(const CellRange& range, const int64_t* cells, int64_t count, Visit&& visit) {
  if (count == range.end - range.begin) return;
  int64_t next = 0;
  for (int64_t cell = range.begin; cell < range.end; ++cell) {
    if (next < count && cells[next] == cell) {
      ++next;
    } else {
      visit(cell);
    }
  }
}

// The new states of the range's cells, up to death after the update. `living` is written where cells can die; the
// rows of the block at list place i are `rows_at(i)`.
template <class T, class RowsAt>
void propose(const Task<T>& task, const Moment& moment, const T* state, const T* drive, const CellRange& range,
             const Scratch<T>& scratch, uint8_t* living, const RowsAt& rows_at, T* next) {
  const Plan& plan = task.plan;
  const int64_t stride = task.layout.stride, heads = task.layout.heads;
  const int64_t gate = heads - stride;  // the gate follows the change, or is the change where there is none
  if (plan.alive_channel >= 0) {
    std::memset(living + range.begin, 1, range.end - range.begin);
    if (plan.alive_before) measure_life(plan, state, stride, range.begin, range.end, living);
  }
  const bool settled = plan.alive_before && !plan.alive_after;
  int64_t* const cells = scratch.cells;
  const int64_t count = list_active(plan, moment, settled ? living : nullptr, range.begin, range.end, cells);

  for_each_other(range, cells, count, [&](int64_t cell) {
    const bool may_change = writable(plan, moment, cell);
    for (int64_t c = 0; c < stride; c += lanes<T>) {
      const Vector<T> x = load(state + cell * stride + c);
      store(next + cell * stride + c, may_change ? accepted(task, x, x, cell, c) : x);
    }
  });
  for (int64_t first = 0; first < count; first += block_cells) {
    const int64_t rows = smaller(block_cells, count - first);
    const Rows<T> block = rows_at(first);
    evaluate_hidden(task, state, drive, cells + first, rows, scratch, block);
    if (plan.hidden > 0) {
      activate_all<T, false>(plan, task.storage, block.hidden, scratch.activated, nullptr, rows * task.layout.hidden);
      evaluate_heads(task, rows, scratch, block.heads);
    }
    with_update(plan, [&](auto update, auto squash) {
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t cell = cells[first + i];
        const T* head = block.heads + i * heads;
        for (int64_t c = 0; c < stride; c += lanes<T>) {
          const Vector<T> x = load(state + cell * stride + c);
          const Vector<T> y = updated<update.value, squash.value>(x, load(head + c), load(head + gate + c),
                                                                  load(task.weights.pace + c));
          store(next + cell * stride + c, accepted(task, x, y, cell, c));
        }
      }
    });
  }
}

// Death of the range's cells after every thread of the sample has proposed its states.
template <class T, class Wait>
void settle(const Task<T>& task, const Moment& moment, const CellRange& range, const Wait& wait, uint8_t* living,
            T* next) {
  const Plan& plan = task.plan;
  const int64_t stride = task.layout.stride;
  if (plan.alive_channel < 0) return;
  if (plan.alive_after) {
    wait();
    measure_life(plan, next, stride, range.begin, range.end, living);
    wait();
  }
  const auto dead = broadcast<Vector<T>>(rounded_number<T>(task.storage, plan.dead_value));
  for (int64_t cell = range.begin; cell < range.end; ++cell) {
    if (living[cell] || !writable(plan, moment, cell)) continue;
    T* at = next + cell * stride;
    for (int64_t c = 0; c < stride; c += lanes<T>) {
      store(at + c, load(task.weights.changes + c) > Vector<T>{} ? dead : load(at + c));
    }
  }
}

template <class T>
void add_column_sums(const T* rows, int64_t count, int64_t width, T* sums) {
  for (int64_t c = 0; c < width; c += lanes<T>) {
    Vector<T> sum = load(sums + c);
    for (int64_t i = 0; i < count; ++i) sum += load(rows + i * width + c);
    store(sums + c, sum);
  }
}

// Gradients of one step, each of one number for each of the state's.
template <class T>
struct StepGradients {
  const T* next;  // of the new state
  T* state;       // of the old one, without what goes through perception
  T* percepts;    // [cells + 1, percepts]
  T* drive;       // [cells, drive], added to
  T* partial;     // weight gradients of this part of the problem, added to
};

// The gradient of the layers' inputs and weights from that of the heads.
template <class T>
void layers_gradient(const Task<T>& task, const T* inputs, int64_t rows, const Scratch<T>& scratch,
                     const GradientLayout<T>& at, T* partial) {
  const Plan& plan = task.plan;
  const Layout<T>& layout = task.layout;
  product<T>(scratch.head_gradient, 1, layout.heads, scratch.activated, layout.hidden, partial + at.head_weight,
             layout.hidden, layout.heads, layout.hidden, rows, Start::sum);
  add_column_sums<T>(scratch.head_gradient, rows, layout.heads, partial + at.head_bias);

  product<T>(scratch.head_gradient, layout.heads, 1, task.weights.from_heads, layout.hidden, scratch.hidden_gradient,
             layout.hidden, rows, layout.hidden, layout.heads, Start::zero);
  for (int64_t i = 0; i < rows * layout.hidden; i += lanes<T>) {
    store(scratch.hidden_gradient + i, load(scratch.hidden_gradient + i) * load(scratch.slopes + i));
  }
  product<T>(scratch.hidden_gradient, 1, layout.hidden, inputs, layout.inputs, partial + at.hidden_weight,
             layout.inputs, plan.hidden, layout.inputs, rows, Start::sum);
  add_column_sums<T>(scratch.hidden_gradient, rows, layout.hidden, partial + at.hidden_bias);

  product<T>(scratch.hidden_gradient, layout.hidden, 1, task.weights.from_hidden, layout.inputs, scratch.input_gradient,
             layout.inputs, rows, layout.inputs, plan.hidden, Start::zero);
}

// The backward pass of one step of the range's cells, up to the adjoint of perception, which needs the percept
// gradients of all cells. `kept(i)` gives the rows that `propose` left for list place i, or null inputs where they
// are to be computed again.
template <class T, class Kept>
void propose_gradient(const Task<T>& task, const Moment& moment, const T* state, const T* drive, const uint8_t* living,
                      const CellRange& range, const Scratch<T>& scratch, const Kept& kept, const GradientLayout<T>& at,
                      const StepGradients<T>& gradient) {
  const Plan& plan = task.plan;
  const Layout<T>& layout = task.layout;
  const int64_t stride = layout.stride, heads = layout.heads, gate = heads - stride;
  const bool can_die = plan.alive_channel >= 0;
  const bool settled = plan.alive_before && !plan.alive_after;
  const bool needs_heads = plan.update != Update::residual || plan.squash != Squash::identity || plan.clamps;
  const Vector<T> zero{};
  int64_t* const cells = scratch.cells;
  const int64_t count = list_active(plan, moment, settled ? living : nullptr, range.begin, range.end, cells);

  for_each_other(range, cells, count, [&](int64_t cell) {
    std::memset(gradient.percepts + cell * layout.percepts, 0, layout.percepts * sizeof(T));
    const bool may_change = writable(plan, moment, cell), dead = can_die && !living[cell];
    for (int64_t c = 0; c < stride; c += lanes<T>) {
      const Vector<T> g = load(gradient.next + cell * stride + c), x = load(state + cell * stride + c);
      const Vector<T> changed = load(task.weights.changes + c) > zero ? g : zero;
      const Vector<T> through = dead ? zero : accepted_gradient(task, x, g, cell, c);
      store(gradient.state + cell * stride + c, may_change ? g - changed + through : g);
    }
  });

  for (int64_t first = 0; first < count; first += block_cells) {
    const int64_t rows = smaller(block_cells, count - first);
    Rows<T> block = kept(first);
    const bool again = block.inputs == nullptr;
    if (again) {
      block = scratch.rows();
      evaluate_hidden(task, state, drive, cells + first, rows, scratch, block);
    }
    if (plan.hidden > 0) {
      activate_all<T, true>(plan, task.storage, block.hidden, scratch.activated, scratch.slopes, rows * layout.hidden);
      if (again && needs_heads) evaluate_heads(task, rows, scratch, block.heads);
    }

    with_update(plan, [&](auto update, auto squash) {
      for (int64_t c = 0; c < stride; c += lanes<T>) {
        const Vector<T> pace = load(task.weights.pace + c);
        Vector<T> pace_gradient = load(gradient.partial + at.pace + c);
        for (int64_t i = 0; i < rows; ++i) {
          const int64_t cell = cells[first + i];
          const T* head = block.heads + i * heads;
          const Vector<T> x = load(state + cell * stride + c), delta = load(head + c), open = load(head + gate + c);
          const Vector<T> g = load(gradient.next + cell * stride + c);
          Vector<T> y{};
          if (plan.clamps) y = updated<update.value, squash.value>(x, delta, open, pace);
          const Vector<T> changed = load(task.weights.changes + c) > zero ? g : zero;
          const Vector<T> through = can_die && !living[cell] ? zero : accepted_gradient(task, y, g, cell, c);
          const auto d = updated_gradient<update.value, squash.value>(x, delta, open, pace, through);
          store(gradient.state + cell * stride + c, task.plain ? d.state : g - changed + d.state);
          T* to = scratch.head_gradient + i * heads;
          if constexpr (update.value == Update::gated) store(to + gate + c, d.gate);
          store(to + c, d.delta);
          if constexpr (update.value == Update::leaky) pace_gradient += d.pace;
        }
        if constexpr (update.value == Update::leaky) store(gradient.partial + at.pace + c, pace_gradient);
      }
    });

    const T* input_gradient = scratch.head_gradient;
    if (plan.hidden > 0) {
      layers_gradient(task, block.inputs, rows, scratch, at, gradient.partial);
      input_gradient = scratch.input_gradient;
    }
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t cell = cells[first + i];
      const T* from = input_gradient + i * layout.inputs;
      for (int64_t c = 0; c < layout.own; c += lanes<T>) {
        T* to = gradient.state + cell * stride + c;
        store(to, load(to) + load(from + c));
      }
      std::memcpy(gradient.percepts + cell * layout.percepts, from + layout.own, layout.percepts * sizeof(T));
      for (int64_t u = 0; u < plan.drive; ++u) {
        gradient.drive[cell * plan.drive + u] += from[layout.own + layout.percepts + u];
      }
    }
    if (plan.perception == Perception::depthwise) {
      filter_gradient<T>(plan, state, stride, gradient.percepts, cells + first, rows, scratch.neighbors,
                         gradient.partial + at.bank);
    }
  }
}

}  // namespace
}  // namespace cube
