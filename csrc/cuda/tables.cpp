#include "tables.h"

#include <cstring>

#include "layout.h"

namespace cube {
namespace {

std::vector<int32_t> neighbors(const Plan& plan, const Offset* offsets, int32_t count) {
  const auto target = [&](int axis, int32_t shift, int32_t index) {
    const AxisMap& map = plan.axis[axis];
    return map.target[(shift + map.reach) * map.size + index];
  };
  std::vector<int32_t> cells;
  for (const Offset* offset = offsets; offset < offsets + count; ++offset) {
    for (int32_t plane = 0; plane < plan.axis[0].size; ++plane) {
      for (int32_t line = 0; line < plan.axis[1].size; ++line) {
        for (int32_t column = 0; column < plan.axis[2].size; ++column) {
          const int32_t z = target(0, offset->axis[0], plane), y = target(1, offset->axis[1], line);
          const int32_t x = target(2, offset->axis[2], column);
          cells.push_back(z < 0 || y < 0 || x < 0 ? -1 : (z * plan.axis[1].size + y) * plan.axis[2].size + x);
        }
      }
    }
  }
  return cells;
}

}  // namespace

template <class T>
size_t TableMemory::add(const std::vector<T>& numbers) {
  const size_t start = (bytes_.size() + 15) / 16 * 16, size = numbers.size() * sizeof(T);
  bytes_.resize(start + size);
  if (size > 0) std::memcpy(bytes_.data() + start, numbers.data(), size);
  return start;
}

TableMemory::TableMemory(const Plan& plan) : fades_(plan.retention != nullptr), windowed_(plan.lifetime != nullptr) {
  const std::vector<int32_t> near = neighbors(plan, plan.offsets, plan.offset_count);
  std::vector<int32_t> start, readers;
  for (int32_t o = 0; o < plan.offset_count; ++o) {
    std::vector<std::vector<int32_t>> of_cell(plan.cells);
    for (int32_t cell = 0; cell < plan.cells; ++cell) {
      const int32_t read = near[o * plan.cells + cell];
      if (read >= 0) of_cell[read].push_back(cell);
    }
    for (const auto& cells : of_cell) {
      start.push_back(static_cast<int32_t>(readers.size()));
      readers.insert(readers.end(), cells.begin(), cells.end());
    }
    start.push_back(static_cast<int32_t>(readers.size()));
  }
  std::vector<float> retention;
  for (int64_t cell = 0; fades_ && cell < plan.cells; ++cell) {
    retention.push_back(static_cast<float>(plan.retention[cell]));
  }
  std::vector<uint8_t> may_change(plan.mutable_channels, plan.mutable_channels + plan.channels);
  may_change.resize(Widths(plan).stride, 0);
  neighbor_ = add(near);
  reader_start_ = add(start);
  reader_ = add(readers);
  pool_ = add(neighbors(plan, plan.pool_offsets, plan.pool_count));
  retention_ = add(retention);
  const int64_t windowed = windowed_ ? plan.cells : 0;
  number_ = add(std::vector<int64_t>(plan.number, plan.number + windowed));
  lifetime_ = add(std::vector<int32_t>(plan.lifetime, plan.lifetime + windowed));
  may_change_ = add(may_change);
}

Tables TableMemory::at(const uint8_t* copy) const {
  const auto numbers = [&](size_t start) { return reinterpret_cast<const int32_t*>(copy + start); };
  return {numbers(neighbor_),
          numbers(reader_start_),
          numbers(reader_),
          numbers(pool_),
          fades_ ? reinterpret_cast<const float*>(copy + retention_) : nullptr,
          windowed_ ? reinterpret_cast<const int64_t*>(copy + number_) : nullptr,
          windowed_ ? numbers(lifetime_) : nullptr,
          copy + may_change_};
}

}  // namespace cube
