// A rule in the target's padded layout: its weights, and where their gradients are summed.
#pragma once
#include "memory.h"
#include "storage.h"

namespace cube {
namespace {

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
        bank(static_cast<int64_t>(plan.filters) * plan.offset_count * stride) {}
  int64_t stride, own, percepts, inputs, hidden, heads, bank;
};

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

// The rule's weights, in both orientations where the backward pass needs the other.
template <class T>
struct PackedWeights {
  PackedWeights(const Plan& plan, const Layout<T>& layout, Storage storage, const RuleWeights& weights, bool backward,
                bool bf16)
      : bank(layout.bank),
        to_hidden(layout.inputs * layout.hidden),
        hidden_bias(layout.hidden),
        to_heads(plan.hidden * layout.heads),
        head_bias(layout.heads),
        from_heads(backward ? layout.heads * layout.hidden : 0),
        from_hidden(backward ? plan.hidden * layout.inputs : 0),
        pace(layout.stride),
        changes(layout.stride),
        narrow_to_hidden(bf16 ? layout.inputs * layout.hidden : 0),
        narrow_to_heads(bf16 ? layout.hidden * layout.heads : 0) {
    decode_rows<T>(storage, weights.bank, static_cast<int64_t>(plan.filters) * plan.offset_count, plan.channels, bank,
                   layout.stride);
    if (plan.hidden > 0) pack_layers(plan, layout, storage, weights, backward);
    if (bf16) {
      interleave(to_hidden, layout.inputs, layout.hidden, narrow_to_hidden);
      interleave(to_heads, plan.hidden, layout.heads, narrow_to_heads);
    }
    if (weights.rate != nullptr) decode<T>(storage, weights.rate, plan.channels, pace);
    for (int64_t c = 0; c < plan.channels; ++c) {
      const T each = weights.rate != nullptr ? pace[c] : static_cast<T>(plan.step_size);
      pace[c] = each * static_cast<T>(plan.fire_scale);
      changes[c] = plan.mutable_channels[c] ? T{1} : T{0};
    }
  }
  Buffer<T> bank;         // [filters * offsets, stride]
  Buffer<T> to_hidden;    // [inputs, hidden]
  Buffer<T> hidden_bias;  // [hidden]
  Buffer<T> to_heads;     // [plan.hidden, heads]
  Buffer<T> head_bias;    // [heads]
  Buffer<T> from_heads;   // [heads, hidden]
  Buffer<T> from_hidden;  // [plan.hidden, inputs]
  Buffer<T> pace;         // [stride], see `updated`
  Buffer<T> changes;      // [stride], 0 for channels that never change
  // The first two as `product_bf16` takes them: [rows / 2, columns, 2].
  Buffer<uint16_t> narrow_to_hidden, narrow_to_heads;

 private:
  void pack_layers(const Plan& plan, const Layout<T>& layout, Storage storage, const RuleWeights& weights,
                   bool backward) {
    decode<T>(storage, weights.hidden_bias, plan.hidden, hidden_bias);
    const Buffer<T> row(larger(plan.inputs, plan.hidden));
    for (int64_t h = 0; h < plan.hidden; ++h) {
      decode<T>(storage, element(storage, weights.hidden_weight, h * plan.inputs), plan.inputs, row);
      for (int64_t i = 0; i < plan.inputs; ++i) {
        const int64_t column = padded_input(plan, layout, i);
        to_hidden[column * layout.hidden + h] = row[i];
        if (backward) from_hidden[h * layout.inputs + column] = row[i];
      }
    }
    for (int64_t n = 0; n < head_count(plan) * plan.channels; ++n) {
      const int64_t column = padded_head(plan, layout, n);
      decode<T>(storage, element(storage, weights.head_bias, n), 1, head_bias + column);
      decode<T>(storage, element(storage, weights.head_weight, n * plan.hidden), plan.hidden, row);
      for (int64_t h = 0; h < plan.hidden; ++h) {
        to_heads[h * layout.heads + column] = row[h];
        if (backward) from_heads[column * layout.hidden + h] = row[h];
      }
    }
  }

  static void interleave(const T* from, int64_t rows, int64_t columns, uint16_t* to) {
    const Buffer<uint16_t> row(columns);
    for (int64_t k = 0; k < rows; ++k) {
      encode<T>(Storage::bfloat16, from + k * columns, columns, row);
      for (int64_t n = 0; n < columns; ++n) to[(k / 2 * columns + n) * 2 + k % 2] = row[n];
    }
  }
};

// Where each weight gradient starts in a part of `size` numbers.
template <class T>
struct GradientLayout {
  GradientLayout(const Plan& plan, const Layout<T>& layout)
      : hidden_weight(0),
        head_weight(hidden_weight + round_up(plan.hidden, row_tile) * layout.inputs),
        hidden_bias(head_weight + round_up(layout.heads, row_tile) * layout.hidden),
        head_bias(hidden_bias + layout.hidden),
        pace(head_bias + layout.heads),
        bank(pace + layout.stride),
        size(bank + layout.bank) {}
  int64_t hidden_weight;  // [plan.hidden, inputs]
  int64_t head_weight;    // [heads, hidden]
  int64_t hidden_bias;    // [hidden]
  int64_t head_bias;      // [heads]
  int64_t pace;           // [stride]
  int64_t bank;           // [filters * offsets, stride]
  int64_t size;
};

template <class T>
void store_layers(const Plan& plan, const Layout<T>& layout, const GradientLayout<T>& at, Storage storage,
                  const T* total, const RuleGradients& gradients) {
  encode<T>(storage, total + at.hidden_bias, plan.hidden, gradients.hidden_bias);
  const Buffer<T> row(plan.inputs);
  for (int64_t h = 0; h < plan.hidden; ++h) {
    for (int64_t i = 0; i < plan.inputs; ++i) {
      row[i] = total[at.hidden_weight + h * layout.inputs + padded_input(plan, layout, i)];
    }
    encode<T>(storage, row, plan.inputs, element(storage, gradients.hidden_weight, h * plan.inputs));
  }
  for (int64_t n = 0; n < head_count(plan) * plan.channels; ++n) {
    const int64_t from = padded_head(plan, layout, n);
    encode<T>(storage, total + at.head_bias + from, 1, element(storage, gradients.head_bias, n));
    encode<T>(storage, total + at.head_weight + from * layout.hidden, plan.hidden,
              element(storage, gradients.head_weight, n * plan.hidden));
  }
}

template <class T>
void store_gradients(const Plan& plan, const Layout<T>& layout, const GradientLayout<T>& at, Storage storage,
                     const T* total, const RuleGradients& gradients) {
  encode_rows<T>(storage, total + at.bank, static_cast<int64_t>(plan.filters) * plan.offset_count, plan.channels,
                 gradients.bank, layout.stride);
  if (plan.hidden > 0) store_layers(plan, layout, at, storage, total, gradients);
  if (gradients.rate != nullptr) {
    const Buffer<T> rate(layout.stride);
    for (int64_t c = 0; c < plan.channels; ++c) rate[c] = total[at.pace + c] * static_cast<T>(plan.fire_scale);
    encode<T>(storage, rate, plan.channels, gradients.rate);
  }
}

}  // namespace
}  // namespace cube
