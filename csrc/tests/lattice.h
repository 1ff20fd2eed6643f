// Boundaries and lattices for the tests, written apart from cube_kernels/lattice.py.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../plan_memory.h"
#include "check.h"

namespace cube {

enum class Boundary { walls, periodic, replicate, reflecting };
constexpr Boundary boundaries[] = {Boundary::walls, Boundary::periodic, Boundary::replicate, Boundary::reflecting};

using Shape = std::array<int32_t, 3>;
using Offsets = std::vector<std::array<int32_t, 3>>;

// What the boundary makes of an index; -1: outside.
inline int32_t bounded(Boundary boundary, int32_t index, int32_t size) {
  if (index >= 0 && index < size) return index;
  switch (boundary) {
    case Boundary::walls: return -1;
    case Boundary::periodic: return ((index % size) + size) % size;
    case Boundary::replicate: return index < 0 ? 0 : size - 1;
    case Boundary::reflecting:
      return size == 1 ? 0 : bounded(boundary, index < 0 ? -index : 2 * size - 2 - index, size);
  }
  return -1;
}

// The cell that `cell` reads at the offset; -1: outside.
inline int64_t neighbor(const Shape& shape, Boundary boundary, int64_t cell, const std::array<int32_t, 3>& offset) {
  const int64_t place[] = {cell / shape[2] / shape[1], cell / shape[2] % shape[1], cell % shape[2]};
  int64_t near = 0;
  for (int a = 0; a < 3; ++a) {
    const int32_t at = bounded(boundary, static_cast<int32_t>(place[a]) + offset[a], shape[a]);
    if (at < 0) return -1;
    near = near * shape[a] + at;
  }
  return near;
}

inline std::unique_ptr<PlanMemory> make_plan(const Shape& shape, int32_t channels, const Offsets& offsets,
                                             Boundary boundary, Perception perception, int32_t filters) {
  std::array<std::vector<int32_t>, 3> targets;
  for (int a = 0; a < 3; ++a) {
    int32_t reach = 0;
    for (const auto& offset : offsets) reach = std::max(reach, std::abs(offset[a]));
    for (int32_t shift = -reach; shift <= reach; ++shift) {
      for (int32_t i = 0; i < shape[a]; ++i) targets[a].push_back(bounded(boundary, i + shift, shape[a]));
    }
  }
  return std::make_unique<PlanMemory>(shape, channels, offsets, std::move(targets), perception, filters);
}

const Offsets von_neumann = {{0, 0, 0}, {-1, 0, 0}, {0, -1, 0}, {0, 0, -1}, {0, 0, 1}, {0, 1, 0}, {1, 0, 0}};

// Offsets, each once, that reach up to `reach` cells.
inline Offsets random_offsets(Random& random, int count, int reach) {
  Offsets offsets;
  while (static_cast<int>(offsets.size()) < count) {
    std::array<int32_t, 3> offset;
    for (int32_t& shift : offset) shift = random.below(2 * reach + 1) - reach;
    if (std::find(offsets.begin(), offsets.end(), offset) == offsets.end()) offsets.push_back(offset);
  }
  return offsets;
}

}  // namespace cube
