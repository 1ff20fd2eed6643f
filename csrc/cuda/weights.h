// The rule's weights from the caller's tensors to the layout of WeightLayout, and their gradients back.
#pragma once
#include "block.h"
#include "kernels.h"
#include "numbers.h"

namespace cube {
namespace {

// The order of the tensors of RuleWeights.
enum Tensor {
  bank_tensor,
  hidden_weight_tensor,
  hidden_bias_tensor,
  head_weight_tensor,
  head_bias_tensor,
  rate_tensor
};

// Where an element of the packed weights comes from: one of those tensors and its index there, or nowhere.
struct Source {
  Tensor tensor;
  int64_t index;  // negative: padding
};

__device__ inline Source source_of(const Plan& plan, const Widths& widths, const WeightLayout& at, int element) {
  const int channels = plan.channels, stride = widths.stride;
  const auto channel_row = [&](Tensor tensor, int i, int64_t rows) {
    const int row = i / stride, c = i % stride;
    return Source{tensor, row < rows && c < channels ? int64_t{row} * channels + c : -1};
  };
  // The dense column of a padded input.
  const auto input = [&](int column) {
    const int vectors = widths.own + widths.percepts;
    if (column >= vectors) return column - vectors < plan.drive ? vectors / stride * channels + column - vectors : -1;
    return column % stride < channels ? column / stride * channels + column % stride : -1;
  };
  const auto matrix = [&](Tensor tensor, int64_t row, int column, int64_t columns) {
    return Source{tensor, row >= 0 && column >= 0 && column < columns ? row * columns + column : -1};
  };
  const auto head = [&](int row) { return channel_row(head_bias_tensor, row, head_count(plan)).index; };
  const auto hidden = [&](int row) { return row < plan.hidden ? row : -1; };
  if (element >= at.rate) return channel_row(rate_tensor, element - at.rate, 1);
  if (element >= at.head_bias) return {head_bias_tensor, head(element - at.head_bias)};
  if (element >= at.head_weight) {
    const int i = element - at.head_weight;
    return matrix(head_weight_tensor, head(i / at.head_stride), i % at.head_stride, plan.hidden);
  }
  if (element >= at.hidden_bias) return {hidden_bias_tensor, hidden(element - at.hidden_bias)};
  if (element >= at.hidden_weight) {
    const int i = element - at.hidden_weight;
    return matrix(hidden_weight_tensor, hidden(i / at.hidden_stride), input(i % at.hidden_stride), plan.inputs);
  }
  return channel_row(bank_tensor, element, int64_t{plan.filters} * plan.offset_count);
}

template <class T>
__global__ void __launch_bounds__(block_threads, 1) pack(const __grid_constant__ PackLaunch launch) {
  for_each_of_grid(launch.weights.size, [&](int64_t i) {
    const Source source = source_of(launch.plan, launch.widths, launch.weights, static_cast<int>(i));
    const T* tensor = static_cast<const T*>(launch.from[source.tensor]);
    static_cast<T*>(launch.to)[i] = tensor != nullptr && source.index >= 0 ? tensor[source.index] : narrowed<T>(0);
  });
}

template <class T>
__global__ void __launch_bounds__(block_threads, 1) collect(const __grid_constant__ CollectLaunch launch) {
  const Common& common = launch.common;
  const Plan& plan = common.plan;
  const Widths& widths = common.widths;
  // In the order of the blocks, which the batch alone decides.
  const auto sum = [&](const Place& place, int first_block, int step, int64_t element) {
    float sum = 0;
    const unsigned char* from = common.slices + place.offset;
    for (int block = first_block; block < launch.blocks; block += step) {
      sum += reinterpret_cast<const float*>(from + block * common.layout.slice_bytes)[element];
    }
    return sum;
  };
  for_each_of_grid(launch.gradients.size, [&](int64_t i) {
    const Source source = source_of(plan, widths, launch.gradients, static_cast<int>(i));
    T* tensor = static_cast<T*>(launch.to[source.tensor]);
    if (tensor == nullptr || source.index < 0) return;
    const float scale = source.tensor == rate_tensor ? static_cast<float>(plan.fire_scale) : 1.0f;
    tensor[source.index] = narrowed<T>(sum(common.layout.result, 0, 1, i) * scale);
  });
  if (launch.shared_drive == nullptr) return;
  for_each_of_grid(plan.cells * plan.drive, [&](int64_t i) {
    const Layout& layout = common.layout;
    const int cell = static_cast<int>(i / plan.drive), rank = cell / layout.cells;  // of the blocks that have the cell
    const int64_t element = (cell - rank * layout.cells) * widths.drive + i % plan.drive;
    static_cast<T*>(launch.shared_drive)[i] = narrowed<T>(sum(layout.drive_gradient, rank, layout.blocks, element));
  });
}

}  // namespace
}  // namespace cube
