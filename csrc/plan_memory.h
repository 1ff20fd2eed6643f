// A Plan and the memory it points to.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "plan.h"

namespace cube {

class PlanMemory {
 public:
  // Cells of `shape`; axis_targets[a] holds the boundary map of axis a for shifts -reach..reach, see AxisMap::target.
  // Every cell fires, lives and may change in all channels; the rule's numbers are for the caller to set.
  PlanMemory(const std::array<int32_t, 3>& shape, int32_t channels, const std::vector<std::array<int32_t, 3>>& offsets,
             std::array<std::vector<int32_t>, 3> axis_targets, Perception perception, int32_t filters);
  PlanMemory(const PlanMemory&) = delete;
  PlanMemory& operator=(const PlanMemory&) = delete;

  // The factor of a cell is the product of its axes'.
  void set_retention(const std::array<std::vector<double>, 3>& axes);
  void set_immutable(const std::vector<int32_t>& channels);
  void set_pool(const std::vector<std::array<int32_t, 3>>& offsets);

  Plan plan{};

 private:
  void mirror_axis(int a, int32_t size);

  std::vector<Offset> offsets_, pool_offsets_;
  std::array<std::vector<int32_t>, 3> targets_, source_starts_, sources_, only_sources_;
  std::vector<double> retention_;
  std::vector<uint8_t> mutable_channels_;
};

}  // namespace cube
