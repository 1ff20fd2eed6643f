// Scratch memory, padded sizes, and how work is divided.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

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

// Blocks on a cache line that a thread has given back, for its next call: taking a dozen from the system costs more
// than a short call computes. Large ones go back to the system. Each block is taken and given back by one thread.
class Blocks {
 public:
  static void* take(size_t bytes) {
    const size_t kept = kind(bytes);
    if (kept < kinds && mine().first[kept] != nullptr) {
      Block* const block = mine().first[kept];
      mine().first[kept] = block->next;
      return block;
    }
    void* const block = std::aligned_alloc(64, kept < kinds ? least << kept : bytes);
    if (block == nullptr) throw std::bad_alloc();
    return block;
  }

  static void give_back(void* memory, size_t bytes) {
    const size_t kept = kind(bytes);
    if (kept == kinds) return std::free(memory);
    Block* const block = static_cast<Block*>(memory);
    block->next = mine().first[kept];
    mine().first[kept] = block;
  }

  ~Blocks() {
    for (Block* block : first) {
      while (block != nullptr) std::free(std::exchange(block, block->next));
    }
  }

 private:
  struct Block {
    Block* next;
  };

#ifdef CUBE_ADDRESS_SANITIZER  // must see the end of each block
  static constexpr size_t kinds = 0;
#else
  static constexpr size_t kinds = 10;
#endif
  static constexpr size_t least = 64;

  // The power of two, counted from `least`, that a block is rounded up to; `kinds` for one that is not kept.
  static size_t kind(size_t bytes) {
    size_t power = 0;
    while (power < kinds && least << power < bytes) ++power;
    return power;
  }

  static Blocks& mine() {
    thread_local Blocks blocks;
    return blocks;
  }

  Block* first[kinds + 1] = {};
};

enum class Fill { zero, nothing };

// Memory on a cache line, with room for one row tile past the end.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count, Fill fill = Fill::zero)
      : bytes_(static_cast<size_t>(round_up((count + row_tile) * sizeof(T), 64))),
        data_(static_cast<T*>(Blocks::take(bytes_))) {
    if (fill == Fill::zero) std::memset(data_, 0, bytes_);
  }
  ~Buffer() { Blocks::give_back(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  operator T*() const { return data_; }

 private:
  const size_t bytes_;
  T* const data_;
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

// Rows of `width` numbers for each cell, which their first use writes, and after them the row that stands for what is
// outside: zeros. Several such, one behind the other.
template <class T>
class CellRows {
 public:
  CellRows(int64_t count, int64_t cells, int64_t width)
      : size_((cells + 1) * width), numbers_(count * size_, Fill::nothing) {
    for (int64_t i = 0; i < count; ++i) std::memset(at(i) + cells * width, 0, width * sizeof(T));
    std::memset(numbers_ + count * size_, 0, row_tile * sizeof(T));
  }
  T* at(int64_t i) const { return numbers_ + i * size_; }

 private:
  const int64_t size_;
  const Buffer<T> numbers_;
};

}  // namespace
}  // namespace cube
