// What one lattice and one rule are, as plain numbers: the contract between the binding and every target.
// Only plain data lives here: the targets are compiled for different instruction sets, and an inline
// function shared between them could be merged by the linker into the copy an older CPU cannot run.
#pragma once
#include <cstdint>

namespace cube {

enum class Activation : int { relu, gelu, silu, tanh };
enum class Squash : int { identity, tanh };
enum class Update : int { residual, replace, gated };

// The boundary map of one axis of `size` cells, for shifts -radius..radius.
struct AxisMap {
  int32_t size;
  int32_t radius;
  // target[(shift + radius) * size + i]: the index that cell i reads at i + shift, or -1 outside a wall.
  const int32_t* target;
  // The mirror of `target`: the cells that read cell j at that shift are
  // source[source_start[(shift + radius) * size + j] .. source_start[(shift + radius) * size + j + 1]).
  const int32_t* source_start;
  const int32_t* source;
};

struct Offset {
  int32_t axis[3];
};

struct Plan {
  AxisMap axis[3];
  int64_t cells;
  int32_t channels;
  int32_t offset_count;
  const Offset* offsets;
  int32_t filters;  // filters a channel; 0 where the neighbors' states are gathered without weights
  bool own_state;   // the cell's own state is an input of the hidden layer
  int32_t drive;    // channels of the drive; 0 for none
  int32_t inputs;   // width of the hidden layer's input
  int32_t hidden;
  Activation activation;
  Squash squash;
  Update update;
  double step_size;
};

static inline int32_t head_count(const Plan& plan) { return plan.update == Update::gated ? 2 : 1; }

// Vectors of `channels` numbers that perception hands to the hidden layer.
static inline int32_t percept_count(const Plan& plan) { return plan.filters > 0 ? plan.filters : plan.offset_count; }

// Everything below is in the caller's layout: contiguous, channels last.
template <class T>
struct RuleWeights {
  const T* filters;        // [filters, offsets, channels]
  const T* hidden_weight;  // [hidden, inputs]
  const T* hidden_bias;    // [hidden]
  const T* head_weight;    // [heads * channels, hidden]
  const T* head_bias;      // [heads * channels]
};

template <class T>
struct RuleGradients {
  T* filters;
  T* hidden_weight;
  T* hidden_bias;
  T* head_weight;
  T* head_bias;
};

struct Schedule {
  int64_t batch;
  bool shared_drive;  // one drive for the whole batch
  int64_t steps;
  int64_t checkpoint_every;
  int threads;
};

// States at steps k, 2k, ... below `steps`; step 0 is the input itself.
static inline int64_t checkpoint_count(int64_t steps, int64_t every) { return steps > 0 ? (steps - 1) / every : 0; }

template <class T>
struct ForwardCall {
  Schedule schedule;
  RuleWeights<T> weights;
  const T* state;  // [batch, cells, channels]
  const T* drive;  // [batch or 1, cells, drive]
  T* result;       // [batch, cells, channels]
  T* checkpoints;  // [checkpoint_count, batch, cells, channels], or null to keep none
};

template <class T>
struct BackwardCall {
  Schedule schedule;
  RuleWeights<T> weights;
  const T* state;
  const T* drive;
  const T* checkpoints;
  const T* result_gradient;
  T* state_gradient;
  T* drive_gradient;  // like the drive
  RuleGradients<T> gradients;
};

}  // namespace cube
