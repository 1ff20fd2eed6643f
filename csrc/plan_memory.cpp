#include "plan_memory.h"

#include <algorithm>
#include <utility>

namespace cube {
namespace {

std::vector<Offset> as_offsets(const std::vector<std::array<int32_t, 3>>& triples) {
  std::vector<Offset> offsets;
  for (const auto& triple : triples) offsets.push_back({{triple[0], triple[1], triple[2]}});
  return offsets;
}

}  // namespace

PlanMemory::PlanMemory(const std::array<int32_t, 3>& shape, int32_t channels,
                       const std::vector<std::array<int32_t, 3>>& offsets,
                       std::array<std::vector<int32_t>, 3> axis_targets, Perception perception, int32_t filters)
    : offsets_(as_offsets(offsets)), targets_(std::move(axis_targets)), mutable_channels_(channels, 1) {
  for (int a = 0; a < 3; ++a) mirror_axis(a, shape[a]);
  plan.cells = int64_t{shape[0]} * shape[1] * shape[2];
  plan.channels = channels;
  plan.offset_count = static_cast<int32_t>(offsets_.size());
  plan.offsets = offsets_.data();
  plan.perception = perception;
  plan.filters = filters;
  plan.mutable_channels = mutable_channels_.data();
  plan.fire_threshold = uint64_t{1} << 32;
  plan.fire_scale = 1;
  plan.alive_channel = -1;
}

void PlanMemory::set_retention(const std::array<std::vector<double>, 3>& axes) {
  for (const double d : axes[0]) {
    for (const double h : axes[1]) {
      for (const double w : axes[2]) retention_.push_back(d * h * w);
    }
  }
  plan.retention = retention_.data();
}

void PlanMemory::set_window(const std::array<std::vector<int32_t>, 3>& places,
                            const std::array<std::vector<int32_t>, 3>& lifetimes, const std::array<int64_t, 3>& whole) {
  for (size_t d = 0; d < places[0].size(); ++d) {
    for (size_t h = 0; h < places[1].size(); ++h) {
      for (size_t w = 0; w < places[2].size(); ++w) {
        numbers_.push_back((places[0][d] * whole[1] + places[1][h]) * whole[2] + places[2][w]);
        lifetimes_.push_back(std::min({lifetimes[0][d], lifetimes[1][h], lifetimes[2][w]}));
      }
    }
  }
  plan.number = numbers_.data();
  plan.lifetime = lifetimes_.data();
}

void PlanMemory::set_immutable(const std::vector<int32_t>& channels) {
  for (const int32_t channel : channels) mutable_channels_.at(channel) = 0;
}

void PlanMemory::set_pool(const std::vector<std::array<int32_t, 3>>& offsets) {
  pool_offsets_ = as_offsets(offsets);
  plan.pool_count = static_cast<int32_t>(pool_offsets_.size());
  plan.pool_offsets = pool_offsets_.data();
}

// The tables by which cells are found that read a cell.
void PlanMemory::mirror_axis(int a, int32_t size) {
  const int32_t shifts = static_cast<int32_t>(targets_[a].size()) / size;
  for (int32_t s = 0; s < shifts; ++s) {
    std::vector<std::vector<int32_t>> readers(size);
    for (int32_t i = 0; i < size; ++i) {
      const int32_t target = targets_[a][s * size + i];
      if (target >= 0) readers[target].push_back(i);
    }
    for (const auto& of_cell : readers) {
      source_starts_[a].push_back(static_cast<int32_t>(sources_[a].size()));
      sources_[a].insert(sources_[a].end(), of_cell.begin(), of_cell.end());
      only_sources_[a].push_back(of_cell.empty() ? -1 : of_cell.size() > 1 ? -2 : of_cell.front());
    }
  }
  source_starts_[a].push_back(static_cast<int32_t>(sources_[a].size()));
  plan.axis[a] = {size,
                  (shifts - 1) / 2,
                  targets_[a].data(),
                  source_starts_[a].data(),
                  sources_[a].data(),
                  only_sources_[a].data()};
}

}  // namespace cube
