// Scratch memory, padded sizes, and how work is divided.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "product.h"

namespace cube {
namespace {

constexpr int64_t block_cells = 4 * row_tile;

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
inline int64_t share(int64_t total, int64_t parts, int64_t part) { return total * part / parts; }

// Cells [begin, end).
struct CellRange {
  int64_t begin, end;
};

// The cells of part `part` of `parts`: whole blocks.
inline CellRange cell_range(int64_t cells, int64_t parts, int64_t part) {
  const int64_t blocks = (cells + block_cells - 1) / block_cells;
  return {share(blocks, parts, part) * block_cells, smaller(share(blocks, parts, part + 1) * block_cells, cells)};
}

enum class Fill { zero, nothing };

// Memory on a cache line, with room for one row tile past the end.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count, Fill fill = Fill::zero) {
    const size_t bytes = static_cast<size_t>(round_up((count + row_tile) * sizeof(T), 64));
    data_ = static_cast<T*>(std::aligned_alloc(64, bytes));
    if (data_ == nullptr) throw std::bad_alloc();
    if (fill == Fill::zero) std::memset(data_, 0, bytes);
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

template <class S>
class List {
 public:
  template <class... Arguments>
  explicit List(int64_t count, const Arguments&... arguments) : items_(new S*[count]()), count_(count) {
    for (int64_t i = 0; i < count; ++i) items_[i] = new S(arguments...);
  }
  ~List() {
    for (int64_t i = 0; i < count_; ++i) delete items_[i];
    delete[] items_;
  }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
  S& operator[](int64_t i) const { return *items_[i]; }

 private:
  S** items_;
  int64_t count_;
};

}  // namespace
}  // namespace cube
