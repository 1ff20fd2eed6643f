// The rollout of a rule and its backward pass on one instruction set.
//
// A crew of threads carries one sample through all its steps in its own cache; several crews share the
// batch. Cells are taken in blocks whose intermediate values never leave the first cache levels. Weight
// gradients are summed in a partition that depends on the problem alone and added up in a fixed tree, so
// that every result is bitwise the same for any number of threads and any checkpoint interval.
#pragma once
#include <cstdlib>
#include <cstring>
#include <new>

#include "../plan.h"
#include "crew.h"
#include "perceive.h"
#include "product.h"

#include "../cell.h"  // after the vectors it computes with

namespace cube {
namespace {

constexpr int64_t block_cells = 4 * row_tile;
constexpr int64_t gradient_parts = 32;  // parts of the batch (and of a sample) with weight gradients of their own

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t share(int64_t total, int64_t parts, int64_t part) { return total * part / parts; }

// Zeroed memory on a cache line, with room for one row tile past the end.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    const size_t bytes = static_cast<size_t>(round_up((count + row_tile) * sizeof(T), 64));
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    std::memset(data_, 0, bytes);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

template <class S>
class List {
 public:
  template <class... Arguments>
  explicit List(int64_t count, const Arguments&... arguments) : items_(new S*[count]()), count_(count) {
    for (int64_t i = 0; i < count; ++i) items_[i] = new S(arguments...);
  }
  ~List() {
    for (int64_t i = 0; i < count_; ++i) delete items_[i];
    delete[] items_;
  }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  S& operator[](int64_t i) const { return *items_[i]; }

 private:
  S** items_;
  int64_t count_;
};

// Sizes in the padded layout: every group of channels fills whole vectors, the rest being zero.
template <class T>
struct Layout {
  explicit Layout(const Plan& plan)
      : stride(round_up(plan.channels, lanes<T>)),
        own(plan.own_state ? stride : 0),
        percepts(percept_count(plan) * stride),
        inputs(own + percepts + round_up(plan.drive, lanes<T>)),
        hidden(round_up(plan.hidden, lanes<T>)),
        heads(head_count(plan) * stride),
        filters(static_cast<int64_t>(plan.filters) * plan.offset_count * stride) {}
  int64_t stride, own, percepts, inputs, hidden, heads, filters;
};

template <class T>
void pad_rows(const T* from, int64_t rows, int64_t width, T* to, int64_t padded_width) {
  for (int64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * padded_width, from + i * width, width * sizeof(T));
    std::memset(to + i * padded_width + width, 0, (padded_width - width) * sizeof(T));
  }
}

template <class T>
void unpad_rows(const T* from, int64_t rows, int64_t width, T* to, int64_t padded_width) {
  for (int64_t i = 0; i < rows; ++i) std::memcpy(to + i * width, from + i * padded_width, width * sizeof(T));
}

// The padded column of each dense input of the hidden layer.
template <class T>
int64_t padded_input(const Plan& plan, const Layout<T>& layout, int64_t input) {
  const int64_t vectors = (plan.own_state ? 1 : 0) + percept_count(plan);
  const int64_t vector = smaller(input / plan.channels, vectors);
  return vector * layout.stride + (input - vector * plan.channels);
}

template <class T>
int64_t padded_head(const Plan& plan, const Layout<T>& layout, int64_t head) {
  return head / plan.channels * layout.stride + head % plan.channels;
}

// The rule's weights in the padded layout, in both orientations where the backward pass needs the other.
template <class T>
struct PackedWeights {
  PackedWeights(const Plan& plan, const Layout<T>& layout, const RuleWeights<T>& weights, bool backward)
      : filters(layout.filters),
        to_hidden(layout.inputs * layout.hidden),
        hidden_bias(layout.hidden),
        to_heads(plan.hidden * layout.heads),
        head_bias(layout.heads),
        from_heads(backward ? layout.heads * layout.hidden : 0),
        from_hidden(backward ? plan.hidden * layout.inputs : 0) {
    pad_rows<T>(weights.filters, static_cast<int64_t>(plan.filters) * plan.offset_count, plan.channels, filters,
                layout.stride);
    std::memcpy(hidden_bias, weights.hidden_bias, plan.hidden * sizeof(T));
    for (int64_t h = 0; h < plan.hidden; ++h) {
      for (int64_t i = 0; i < plan.inputs; ++i) {
        const int64_t column = padded_input(plan, layout, i);
        const T weight = weights.hidden_weight[h * plan.inputs + i];
        to_hidden[column * layout.hidden + h] = weight;
        if (backward) from_hidden[h * layout.inputs + column] = weight;
      }
    }
    for (int64_t n = 0; n < head_count(plan) * plan.channels; ++n) {
      const int64_t column = padded_head(plan, layout, n);
      head_bias[column] = weights.head_bias[n];
      for (int64_t h = 0; h < plan.hidden; ++h) {
        const T weight = weights.head_weight[n * plan.hidden + h];
        to_heads[h * layout.heads + column] = weight;
        if (backward) from_heads[column * layout.hidden + h] = weight;
      }
    }
  }
  Buffer<T> filters;      // [filters * offsets, stride]
  Buffer<T> to_hidden;    // [inputs, hidden]
  Buffer<T> hidden_bias;  // [hidden]
  Buffer<T> to_heads;     // [plan.hidden, heads]
  Buffer<T> head_bias;    // [heads]
  Buffer<T> from_heads;   // [heads, hidden]
  Buffer<T> from_hidden;  // [plan.hidden, inputs]
};

// Weight gradients of one part of the problem, in the padded layout.
template <class T>
struct PartialGradients {
  PartialGradients(const Plan& plan, const Layout<T>& layout)
      : hidden_weight(0),
        head_weight(hidden_weight + round_up(plan.hidden, row_tile) * layout.inputs),
        hidden_bias(head_weight + round_up(layout.heads, row_tile) * layout.hidden),
        head_bias(hidden_bias + layout.hidden),
        filters(head_bias + layout.heads),
        size(filters + layout.filters) {}
  // Where each gradient starts in a part of `size` numbers.
  int64_t hidden_weight;  // [plan.hidden, inputs]
  int64_t head_weight;    // [heads, hidden]
  int64_t hidden_bias;    // [hidden]
  int64_t head_bias;      // [heads]
  int64_t filters;        // [filters * offsets, stride]
  int64_t size;
};

// One thread's scratch for a block of cells.
template <class T>
struct BlockScratch {
  BlockScratch(const Plan& plan, const Layout<T>& layout, bool backward)
      : neighbors(plan.offset_count),
        readers(backward ? plan.offset_count : 0),
        inputs(block_cells * layout.inputs),
        hidden(block_cells * layout.hidden),
        heads(block_cells * layout.heads),
        slopes(backward ? block_cells * layout.hidden : 0),
        hidden_gradient(backward ? block_cells * layout.hidden : 0),
        input_gradient(backward ? block_cells * layout.inputs : 0) {}
  Buffer<NeighborRow> neighbors;
  Buffer<ReaderRows> readers;
  Buffer<T> inputs;
  Buffer<T> hidden;
  Buffer<T> heads;
  Buffer<T> slopes;  // of the activation
  Buffer<T> hidden_gradient;
  Buffer<T> input_gradient;
};

template <class T, Activation kind, bool with_slopes>
void activate_all(T* hidden, T* slopes, int64_t count) {
  for (int64_t i = 0; i < count; i += lanes<T>) {
    const auto a = activate<kind>(load(hidden + i));
    store(hidden + i, a.value);
    if constexpr (with_slopes) store(slopes + i, a.slope);
  }
}

template <class T, bool with_slopes>
void activate_all(Activation kind, T* hidden, T* slopes, int64_t count) {
  switch (kind) {
    case Activation::relu: return activate_all<T, Activation::relu, with_slopes>(hidden, slopes, count);
    case Activation::gelu: return activate_all<T, Activation::gelu, with_slopes>(hidden, slopes, count);
    case Activation::silu: return activate_all<T, Activation::silu, with_slopes>(hidden, slopes, count);
    case Activation::tanh: return activate_all<T, Activation::tanh, with_slopes>(hidden, slopes, count);
  }
}

template <auto v>
struct Constant {
  static constexpr auto value = v;
};

// Calls body(Constant<update>, Constant<squash>) for the plan's pair.
template <class Body>
void with_update(const Plan& plan, Body&& body) {
  const auto with_squash = [&](auto update) {
    plan.squash == Squash::tanh ? body(update, Constant<Squash::tanh>{}) : body(update, Constant<Squash::identity>{});
  };
  switch (plan.update) {
    case Update::residual: return with_squash(Constant<Update::residual>{});
    case Update::replace: return with_squash(Constant<Update::replace>{});
    case Update::gated: return with_squash(Constant<Update::gated>{});
  }
}

// Everything about a call that its threads share and do not write.
template <class T>
struct Task {
  const Plan& plan;
  const Layout<T>& layout;
  const PackedWeights<T>& weights;
};

// z, the hidden values and the heads of the cells [begin, end), into the scratch.
template <class T, bool with_slopes>
void evaluate_block(const Task<T>& task, const T* state, const T* drive, int64_t begin, int64_t end,
                    const BlockScratch<T>& scratch) {
  const Plan& plan = task.plan;
  const Layout<T>& layout = task.layout;
  const int64_t rows = end - begin;
  if (plan.own_state) {
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(scratch.inputs + i * layout.inputs, state + (begin + i) * layout.stride, layout.stride * sizeof(T));
    }
  }
  perceive<T>(plan, state, layout.stride, task.weights.filters, begin, end, scratch.neighbors,
              scratch.inputs + layout.own, layout.inputs);
  for (int64_t i = 0; i < rows && plan.drive > 0; ++i) {
    std::memcpy(scratch.inputs + i * layout.inputs + layout.own + layout.percepts, drive + (begin + i) * plan.drive,
                plan.drive * sizeof(T));
  }
  product<T>(scratch.inputs, layout.inputs, 1, task.weights.to_hidden, layout.hidden, scratch.hidden, layout.hidden,
             rows, layout.hidden, layout.inputs, Start::bias, task.weights.hidden_bias);
  activate_all<T, with_slopes>(plan.activation, scratch.hidden, scratch.slopes, rows * layout.hidden);
  product<T>(scratch.hidden, layout.hidden, 1, task.weights.to_heads, layout.heads, scratch.heads, layout.heads, rows,
             layout.heads, plan.hidden, Start::bias, task.weights.head_bias);
}

// One step of the cells [begin, end).
template <class T>
void step_block(const Task<T>& task, const T* state, const T* drive, int64_t begin, int64_t end,
                const BlockScratch<T>& scratch, T* next) {
  evaluate_block<T, false>(task, state, drive, begin, end, scratch);
  const int64_t stride = task.layout.stride, heads = task.layout.heads;
  const int64_t gate = heads - stride;  // the gate follows the change, or is the change where there is none
  with_update(task.plan, [&](auto update, auto squash) {
    for (int64_t i = 0; i < end - begin; ++i) {
      const T* from = state + (begin + i) * stride;
      const T* head = scratch.heads + i * heads;
      T* to = next + (begin + i) * stride;
      for (int64_t c = 0; c < stride; c += lanes<T>) {
        store(to + c, updated<update.value, squash.value>(load(from + c), load(head + c), load(head + gate + c),
                                                          task.plan.step_size));
      }
    }
  });
}

template <class T>
void add_column_sums(const T* rows, int64_t count, int64_t width, T* sums) {
  for (int64_t c = 0; c < width; c += lanes<T>) {
    Vector<T> sum = load(sums + c);
    for (int64_t i = 0; i < count; ++i) sum += load(rows + i * width + c);
    store(sums + c, sum);
  }
}

// The backward pass of one step of the cells [begin, end), up to the adjoint of perception, which needs the
// percept gradients of all cells. `gradient` is that of the new state; what reaches the old state without
// perception is written to `state_gradient`. Drive and weight gradients are added up.
template <class T>
void step_block_gradient(const Task<T>& task, const T* state, const T* drive, const T* gradient, int64_t begin,
                         int64_t end, const BlockScratch<T>& scratch, T* state_gradient, T* percept_gradient,
                         T* drive_gradient, const PartialGradients<T>& at, T* partial) {
  const Plan& plan = task.plan;
  const Layout<T>& layout = task.layout;
  const int64_t rows = end - begin, stride = layout.stride, heads = layout.heads, gate = heads - stride;
  evaluate_block<T, true>(task, state, drive, begin, end, scratch);

  with_update(plan, [&](auto update, auto squash) {
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t cell = (begin + i) * stride;
      T* head = scratch.heads + i * heads;
      for (int64_t c = 0; c < stride; c += lanes<T>) {
        const auto g = updated_gradient<update.value, squash.value>(
            load(state + cell + c), load(head + c), load(head + gate + c), plan.step_size, load(gradient + cell + c));
        store(state_gradient + cell + c, g.state);
        if constexpr (update.value == Update::gated) store(head + gate + c, g.gate);
        store(head + c, g.delta);
      }
    }
  });
  const T* head_gradient = scratch.heads;

  product<T>(head_gradient, 1, heads, scratch.hidden, layout.hidden, partial + at.head_weight, layout.hidden, heads,
             layout.hidden, rows, Start::sum);
  add_column_sums<T>(head_gradient, rows, heads, partial + at.head_bias);

  product<T>(head_gradient, heads, 1, task.weights.from_heads, layout.hidden, scratch.hidden_gradient, layout.hidden,
             rows, layout.hidden, heads, Start::zero);
  for (int64_t i = 0; i < rows * layout.hidden; i += lanes<T>) {
    store(scratch.hidden_gradient + i, load(scratch.hidden_gradient + i) * load(scratch.slopes + i));
  }
  product<T>(scratch.hidden_gradient, 1, layout.hidden, scratch.inputs, layout.inputs, partial + at.hidden_weight,
             layout.inputs, plan.hidden, layout.inputs, rows, Start::sum);
  add_column_sums<T>(scratch.hidden_gradient, rows, layout.hidden, partial + at.hidden_bias);

  product<T>(scratch.hidden_gradient, layout.hidden, 1, task.weights.from_hidden, layout.inputs, scratch.input_gradient,
             layout.inputs, rows, layout.inputs, plan.hidden, Start::zero);
  for (int64_t i = 0; i < rows; ++i) {
    const T* from = scratch.input_gradient + i * layout.inputs;
    for (int64_t c = 0; c < layout.own; c += lanes<T>) {
      T* to = state_gradient + (begin + i) * stride + c;
      store(to, load(to) + load(from + c));
    }
    std::memcpy(percept_gradient + (begin + i) * layout.percepts, from + layout.own, layout.percepts * sizeof(T));
    for (int64_t u = 0; u < plan.drive; ++u) {
      drive_gradient[(begin + i) * plan.drive + u] += from[layout.own + layout.percepts + u];
    }
  }
  filter_gradient<T>(plan, state, stride, percept_gradient, begin, end, partial + at.filters);
}

// How a crew's members share the threads, the batch and a sample's cells.
struct Split {
  Split(int threads, int64_t units, int64_t cells)
      : crews(smaller(threads, units)), members(smaller(threads / crews, round_up(cells, block_cells) / block_cells)) {}
  int64_t crews;
  int64_t members;
};

// Members of one crew, and the unit of work (sample or group of samples) they are at.
struct CrewState {
  explicit CrewState(int members) : barrier(members) {}
  Barrier barrier;
  int64_t unit = 0;
};

// One thread's place in its crew.
struct Member {
  int64_t crew, index, count;
  Barrier& barrier;
};

// Calls work(Member, unit) with all members of a crew for every unit in [0, units).
template <class Work>
void share_units(Crew& threads, const Split& split, int64_t units, const Work& work) {
  struct Context {
    const Split& split;
    int64_t units;
    const Work& work;
    Counter counter;
    List<CrewState> crews;
  } context{split, units, work, {}, List<CrewState>(split.crews, static_cast<int>(split.members))};
  threads.run(
      [](void* opaque, int thread) {
        Context& c = *static_cast<Context*>(opaque);
        const int64_t crew = thread / c.split.members;
        if (crew >= c.split.crews) return;
        CrewState& state = c.crews[crew];
        const Member member{crew, thread % c.split.members, c.split.members, state.barrier};
        for (;;) {
          if (member.index == 0) state.unit = c.counter.next();
          state.barrier.wait();
          const int64_t unit = state.unit;
          if (unit >= c.units) return;
          c.work(member, unit);
          state.barrier.wait();
        }
      },
      &context);
}

template <class Step>
void for_each_block(int64_t begin, int64_t end, const Step& step) {
  for (int64_t cell = begin; cell < end; cell += block_cells) step(cell, smaller(cell + block_cells, end));
}

// The cells of part `part` of `parts`: whole blocks.
struct CellRange {
  int64_t begin, end;
};
inline CellRange cell_range(int64_t cells, int64_t parts, int64_t part) {
  const int64_t blocks = (cells + block_cells - 1) / block_cells;
  return {share(blocks, parts, part) * block_cells, smaller(share(blocks, parts, part + 1) * block_cells, cells)};
}

template <class T>
void rollout_forward(const Plan& plan, const ForwardCall<T>& call) {
  const Schedule& schedule = call.schedule;
  if (schedule.batch == 0) return;
  const Layout<T> layout(plan);
  const PackedWeights<T> weights(plan, layout, call.weights, false);
  const Task<T> task{plan, layout, weights};
  Crew threads(schedule.threads);
  const Split split(threads.size(), schedule.batch, plan.cells);
  const List<BlockScratch<T>> scratch(split.crews * split.members, plan, layout, false);
  const List<Buffer<T>> states(2 * split.crews, plan.cells * layout.stride);

  const int64_t sample_size = plan.cells * plan.channels, drive_size = plan.cells * plan.drive;

  share_units(threads, split, schedule.batch, [&](const Member& member, int64_t sample) {
    const auto [begin, end] = cell_range(plan.cells, member.count, member.index);
    const BlockScratch<T>& block = scratch[member.crew * member.count + member.index];
    const T* drive = call.drive + (schedule.shared_drive ? 0 : sample * drive_size);
    T* state = states[2 * member.crew];
    T* next = states[2 * member.crew + 1];
    const auto store_state = [&, first = begin, count = end - begin](T* to) {
      unpad_rows(state + first * layout.stride, count, plan.channels, to + sample * sample_size + first * plan.channels,
                 layout.stride);
    };
    pad_rows(call.state + sample * sample_size + begin * plan.channels, end - begin, plan.channels,
             state + begin * layout.stride, layout.stride);
    for (int64_t step = 0; step < schedule.steps; ++step) {
      member.barrier.wait();
      if (call.checkpoints != nullptr && step > 0 && step % schedule.checkpoint_every == 0) {
        store_state(call.checkpoints + (step / schedule.checkpoint_every - 1) * schedule.batch * sample_size);
      }
      for_each_block(begin, end,
                     [&](int64_t first, int64_t last) { step_block(task, state, drive, first, last, block, next); });
      T* const old = state;
      state = next;
      next = old;
    }
    store_state(call.result);
  });
}

// The sum of `count` parts of `size` numbers each, left in the first: a binary tree over the parts, the same
// for any number of threads.
template <class T>
void add_parts(Crew& threads, T* parts, int64_t count, int64_t size) {
  struct Context {
    T* parts;
    int64_t count, size, members;
  } context{parts, count, size, threads.size()};
  threads.run(
      [](void* opaque, int member) {
        const Context& c = *static_cast<const Context*>(opaque);
        const int64_t begin = share(c.size, c.members, member), end = share(c.size, c.members, member + 1);
        for (int64_t gap = 1; gap < c.count; gap *= 2) {
          for (int64_t part = 0; part + gap < c.count; part += 2 * gap) {
            T* to = c.parts + part * c.size;
            const T* from = c.parts + (part + gap) * c.size;
            for (int64_t i = begin; i < end; ++i) to[i] += from[i];
          }
        }
      },
      &context);
}

template <class T>
void store_gradients(const Plan& plan, const Layout<T>& layout, const PartialGradients<T>& at, const T* total,
                     const RuleGradients<T>& gradients) {
  unpad_rows<T>(total + at.filters, static_cast<int64_t>(plan.filters) * plan.offset_count, plan.channels,
                gradients.filters, layout.stride);
  for (int64_t h = 0; h < plan.hidden; ++h) {
    gradients.hidden_bias[h] = total[at.hidden_bias + h];
    for (int64_t i = 0; i < plan.inputs; ++i) {
      gradients.hidden_weight[h * plan.inputs + i] =
          total[at.hidden_weight + h * layout.inputs + padded_input(plan, layout, i)];
    }
  }
  for (int64_t n = 0; n < head_count(plan) * plan.channels; ++n) {
    const int64_t row = padded_head(plan, layout, n);
    gradients.head_bias[n] = total[at.head_bias + row];
    unpad_rows<T>(total + at.head_weight + row * layout.hidden, 1, plan.hidden, gradients.head_weight + n * plan.hidden,
                  layout.hidden);
  }
}

template <class T>
void rollout_backward(const Plan& plan, const BackwardCall<T>& call) {
  const Schedule& schedule = call.schedule;
  const Layout<T> layout(plan);
  const PartialGradients<T> at(plan, layout);
  // Groups of samples, and slabs of a sample's cells, have weight gradients of their own.
  const int64_t groups = smaller(schedule.batch, gradient_parts);
  const int64_t blocks = (plan.cells + block_cells - 1) / block_cells;
  const int64_t slabs = groups == 0 ? 0 : smaller(gradient_parts / groups, blocks);
  const int64_t segment = smaller(schedule.checkpoint_every, schedule.steps);
  const int64_t sample_size = plan.cells * plan.channels, drive_size = plan.cells * plan.drive;

  const PackedWeights<T> weights(plan, layout, call.weights, true);
  const Task<T> task{plan, layout, weights};
  Crew threads(schedule.threads);
  const Split split(threads.size(), groups > 0 ? groups : 1, plan.cells);
  const List<BlockScratch<T>> scratch(split.crews * split.members, plan, layout, true);
  const List<Buffer<T>> segments(split.crews, segment * plan.cells * layout.stride);
  const List<Buffer<T>> state_gradients(2 * split.crews, plan.cells * layout.stride);
  const List<Buffer<T>> percept_gradients(split.crews, plan.cells * layout.percepts);
  const Buffer<T> partials((groups > 0 ? groups * slabs : 1) * at.size);
  const Buffer<T> shared_drive_gradients(schedule.shared_drive ? (groups > 0 ? groups : 1) * drive_size : 0);

  share_units(threads, split, groups, [&](const Member& member, int64_t group) {
    const int64_t first_slab = share(slabs, member.count, member.index);
    const int64_t last_slab = share(slabs, member.count, member.index + 1);
    const int64_t begin = cell_range(plan.cells, slabs, first_slab).begin;
    const int64_t end = first_slab < last_slab ? cell_range(plan.cells, slabs, last_slab - 1).end : begin;
    const BlockScratch<T>& block = scratch[member.crew * member.count + member.index];
    T* const states = segments[member.crew];
    T* const percept_gradient = percept_gradients[member.crew];
    T* gradient = state_gradients[2 * member.crew];
    T* next_gradient = state_gradients[2 * member.crew + 1];
    const int64_t state_size = plan.cells * layout.stride;

    const int64_t last_sample = share(schedule.batch, groups, group + 1);
    for (int64_t sample = share(schedule.batch, groups, group); sample < last_sample; ++sample) {
      const T* drive = call.drive + (schedule.shared_drive ? 0 : sample * drive_size);
      T* drive_gradient = schedule.shared_drive ? shared_drive_gradients + group * drive_size
                                                : call.drive_gradient + sample * drive_size;
      const auto pad_cells = [&, first = begin, count = end - begin](const T* from, T* to) {
        pad_rows(from + sample * sample_size + first * plan.channels, count, plan.channels, to + first * layout.stride,
                 layout.stride);
      };
      if (plan.drive > 0 && !schedule.shared_drive) {
        std::memset(drive_gradient + begin * plan.drive, 0, (end - begin) * plan.drive * sizeof(T));
      }
      pad_cells(call.result_gradient, gradient);

      int64_t segment_end = schedule.steps;
      while (segment_end > 0) {
        const int64_t start = (segment_end - 1) / schedule.checkpoint_every * schedule.checkpoint_every;
        pad_cells(start == 0
                      ? call.state
                      : call.checkpoints + (start / schedule.checkpoint_every - 1) * schedule.batch * sample_size,
                  states);
        member.barrier.wait();
        for (int64_t step = start; step + 1 < segment_end; ++step) {
          T* const state = states + (step - start) * state_size;
          for_each_block(begin, end, [&](int64_t first, int64_t last) {
            step_block<T>(task, state, drive, first, last, block, state + state_size);
          });
          member.barrier.wait();
        }
        for (int64_t step = segment_end - 1; step >= start; --step) {
          for (int64_t slab = first_slab; slab < last_slab; ++slab) {
            const auto range = cell_range(plan.cells, slabs, slab);
            for_each_block(range.begin, range.end, [&](int64_t first, int64_t last) {
              step_block_gradient<T>(task, states + (step - start) * state_size, drive, gradient, first, last, block,
                                     next_gradient, percept_gradient, drive_gradient, at,
                                     partials + (group * slabs + slab) * at.size);
            });
          }
          member.barrier.wait();
          perceive_adjoint<T>(plan, percept_gradient, layout.stride, weights.filters, begin, end, block.readers,
                              next_gradient);
          member.barrier.wait();
          T* const old = gradient;
          gradient = next_gradient;
          next_gradient = old;
        }
        segment_end = start;
      }
      unpad_rows(gradient + begin * layout.stride, end - begin, plan.channels,
                 call.state_gradient + sample * sample_size + begin * plan.channels, layout.stride);
    }
  });

  add_parts<T>(threads, partials, groups * slabs, at.size);
  store_gradients<T>(plan, layout, at, partials, call.gradients);
  if (schedule.shared_drive) {
    add_parts<T>(threads, shared_drive_gradients, groups, drive_size);
    std::memcpy(call.drive_gradient, shared_drive_gradients, drive_size * sizeof(T));
  }
}

}  // namespace
}  // namespace cube
