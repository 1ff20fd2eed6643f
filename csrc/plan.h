// What one lattice and one rule are, as plain numbers: the contract between the binding and every target.
// Only plain data lives here: the targets are compiled for different instruction sets, and an inline
// function shared between them could be merged by the linker into the copy an older CPU cannot run.
#pragma once
#include <cstdint>

namespace cube {

// The names of an enum's values, as its definition lists them: the binding takes and tells values by these.
template <class E>
struct Names;

#define CUBE_NAMED_ENUM(E, type, ...)                \
  enum class E : type { __VA_ARGS__ };               \
  template <>                                        \
  struct Names<E> {                                  \
    static constexpr const char* kind = #E;          \
    static constexpr const char* all = #__VA_ARGS__; \
  }

// Weighted sums over the neighborhood, or the neighbors' states without weights. A byte fits beside own_state: a longer
// plan costs the CUDA kernels registers.
CUBE_NAMED_ENUM(Perception, uint8_t, depthwise, gather);
CUBE_NAMED_ENUM(Activation, int, relu, gelu, silu, tanh);
CUBE_NAMED_ENUM(Squash, int, identity, tanh);
CUBE_NAMED_ENUM(Update, int, residual, replace, gated, leaky);

// How the caller's numbers are stored. Half-width ones are computed in float; the operands of matrix products and the
// new state are rounded to the storage.
CUBE_NAMED_ENUM(Storage, int, float64, float32, bfloat16, float16);

static constexpr int32_t storage_bytes(Storage storage) {
  switch (storage) {
    case Storage::float64: return 8;
    case Storage::float32: return 4;
    case Storage::bfloat16: return 2;
    case Storage::float16: return 2;
  }
  __builtin_unreachable();
}

// The boundary map of one axis of `size` cells, for shifts -reach..reach. Entries of a shift begin at
// (shift + reach) * size.
struct AxisMap {
  int32_t size;
  int32_t reach;
  // The index that cell i reads at i + shift, or -1 outside.
  const int32_t* target;
  // The mirror of `target`: the cells that read cell j at that shift are source[source_start[j]] to
  // source[source_start[j + 1]] (source_start having the shift's entries, too).
  const int32_t* source_start;
  const int32_t* source;
  // The only cell that reads cell j at that shift, -1 if there is none, -2 if there are several.
  const int32_t* only_source;
};

struct Offset {
  int32_t axis[3];
};

struct Plan {
  AxisMap axis[3];
  int64_t cells;
  int32_t channels;

  // Perception, hidden layer, update: see cube_kernels/update_rule.py.
  int32_t offset_count;
  const Offset* offsets;
  int32_t filters;  // a channel, of depthwise perception; 0 where the neighbors' states are gathered
  bool own_state;   // the cell's own state is an input of the hidden layer
  Perception perception;
  int32_t drive;   // channels of the drive; 0 for none
  int32_t inputs;  // width of the hidden layer's input
  int32_t hidden;  // 0: the percepts are the heads
  Activation activation;
  Squash squash;
  Update update;
  double step_size;  // 1 for an update that it does not scale

  uint64_t fire_threshold;  // a cell fires if its random word is below; 2^32: every cell in every step
  double fire_scale;        // of a fired cell's change
  bool clamps;
  double low, high;
  const double* retention;          // [cells], the absorbing boundary's factor; null for none
  const uint8_t* mutable_channels;  // [channels], 0 for those that never change
  // Of a block of a whole lattice; null for the whole.
  const int64_t* number;    // [cells], each cell's in the whole, by which the fire mask counts
  const int32_t* lifetime;  // [cells], how many steps of a call compute each cell

  int32_t alive_channel;  // -1: every cell lives
  bool alive_before, alive_after;
  double alive_threshold, dead_value;
  int32_t pool_count;  // offsets over which life is measured
  const Offset* pool_offsets;
};

static constexpr int32_t head_count(const Plan& plan) { return plan.update == Update::gated ? 2 : 1; }

// Vectors of `channels` numbers that perception hands to the hidden layer.
static constexpr int32_t percept_count(const Plan& plan) {
  return plan.perception == Perception::gather ? plan.offset_count : plan.filters;
}

// Everything below is in the caller's layout and storage: contiguous, channels last.
struct RuleWeights {
  const void* bank;           // [filters, offsets, channels]
  const void* hidden_weight;  // [hidden, inputs]
  const void* hidden_bias;    // [hidden]
  const void* head_weight;    // [heads * channels, hidden]
  const void* head_bias;      // [heads * channels]
  const void* rate;           // [channels], of the leaky update; null: the step size
};

struct RuleGradients {
  void* bank;
  void* hidden_weight;
  void* hidden_bias;
  void* head_weight;
  void* head_bias;
  void* rate;  // null for none
};

struct Schedule {
  Storage storage;
  int64_t batch;
  bool shared_drive, shared_write_mask;  // one for the whole batch
  int64_t steps;
  int64_t checkpoint_every;
  uint64_t seed;
  int64_t trajectory_every;          // 0: no trajectory
  double tolerance;                  // negative: every sample takes all steps
  int64_t first_step, first_sample;  // as the fire mask counts them
  int threads;
  int64_t patience;    // microseconds that a call waits for its threads to wake up
  bool bf16_products;  // this CPU has AVX512-BF16
};

// States at steps k, 2k, ... below `steps`; step 0 is the input itself.
static inline int64_t checkpoint_count(int64_t steps, int64_t every) { return steps > 0 ? (steps - 1) / every : 0; }

struct ForwardCall {
  Schedule schedule;
  RuleWeights weights;
  const void* state;          // [batch, cells, channels]
  const void* drive;          // [batch or 1, cells, drive]
  const uint8_t* write_mask;  // [batch or 1, cells], 0 for cells that never change; null if all may
  void* result;               // [batch, cells, channels]
  void* checkpoints;          // [checkpoint_count, batch, cells, channels], or null to keep none
  void* trajectory;           // [steps / trajectory_every, batch, cells, channels]
  int64_t* taken;             // [batch], the steps of each sample; null without a tolerance
};

struct BackwardCall {
  Schedule schedule;
  RuleWeights weights;
  const void* state;
  const void* drive;
  const uint8_t* write_mask;
  const void* checkpoints;
  const int64_t* taken;             // null: all steps
  const void* result_gradient;      // [batch, cells, channels]
  const void* trajectory_gradient;  // like the trajectory; null for zero
  Storage gradient_storage;         // of the first and of the next
  void* state_gradient;
  void* drive_gradient;  // like the drive
  RuleGradients gradients;
};

// Perception alone; the bank is null where the plan gathers.
struct PerceptionCall {
  Storage storage;
  int64_t batch;
  int threads;
  int64_t patience;
  const void* bank;      // [filters, offsets, channels]
  const void* state;     // [batch, cells, channels]
  const void* percepts;  // [batch, cells, percept_count, channels]
  void* result;          // percepts, a state or a bank
};

}  // namespace cube
