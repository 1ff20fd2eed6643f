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
  // A block of a lattice of `whole`: where each index of each axis lies in it, and how many steps compute its cells.
  void set_window(const std::array<std::vector<int32_t>, 3>& places,
                  const std::array<std::vector<int32_t>, 3>& lifetimes, const std::array<int64_t, 3>& whole);
  void set_immutable(const std::vector<int32_t>& channels);
  void set_pool(const std::vector<std::array<int32_t, 3>>& offsets);

  Plan plan{};

 private:
  void mirror_axis(int a, int32_t size);

  std::vector<Offset> offsets_, pool_offsets_;
  std::array<std::vector<int32_t>, 3> targets_, source_starts_, sources_, only_sources_;
  std::vector<double> retention_;
  std::vector<int64_t> numbers_;
  std::vector<int32_t> lifetimes_;
  std::vector<uint8_t> mutable_channels_;
};

}  // namespace cube
