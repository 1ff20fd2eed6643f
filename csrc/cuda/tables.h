// A plan's tables as kernels read them, in one piece of memory that the caller copies to the device.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../plan.h"

namespace cube {

struct Tables {
  const int32_t* neighbor;  // [offsets, cells]: the cell that each cell reads; -1 outside
  // The mirror: at each offset, the cells that read a cell are reader[reader_start[cell]] to
  // reader[reader_start[cell + 1]].
  const int32_t* reader_start;  // [offsets, cells + 1]
  const int32_t* reader;
  const int32_t* pool;        // [pool offsets, cells]: like `neighbor`, for life
  const float* retention;     // [cells]; null for none
  const int64_t* number;      // [cells]: as in Plan
  const int32_t* lifetime;    // [cells]: as in Plan
  const uint8_t* may_change;  // [channels, padded with zeros to whole packets]
};

class TableMemory {
 public:
  explicit TableMemory(const Plan& plan);
  const std::vector<uint8_t>& bytes() const { return bytes_; }
  // The tables in a copy of `bytes` that begins at this address, a multiple of 16.
  Tables at(const uint8_t* copy) const;

 private:
  template <class T>
  size_t add(const std::vector<T>& numbers);

  std::vector<uint8_t> bytes_;
  size_t neighbor_, reader_start_, reader_, pool_, retention_, number_, lifetime_, may_change_;
  bool fades_, windowed_;
};

}  // namespace cube
