// The linear part: matrix products, perception, its adjoint and its filter gradient, and where they read and write.
#include <sys/mman.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "../native/memory.h"
#include "../native/perceive.h"
#include "../native/storage.h"
#include "lattice.h"

namespace cube {
namespace {

template <class T>
std::vector<T> random_numbers(Random& random, int64_t count) {
  std::vector<T> numbers(count);
  for (T& number : numbers) number = static_cast<T>(random.uniform());
  return numbers;
}

// Both orientations of the left operand; sums of small integers, which are exact.
template <class T>
void check_product(int rows, int columns, int depth, bool transposed, Start start, Random& random) {
  const int64_t width = round_up(columns, lanes<T>), room = round_up(rows, row_tile);
  const int64_t a_row = transposed ? 1 : depth, a_step = transposed ? room : 1;
  std::vector<T> a(room * depth), b(depth * width), bias(width), c(room * width);
  for (auto* operand : {&a, &b, &bias, &c}) {
    for (T& number : *operand) number = static_cast<T>(random.below(17) - 8);
  }
  std::vector<T> right(rows * width);
  for (int i = 0; i < rows; ++i) {
    for (int n = 0; n < columns; ++n) {
      T sum = start == Start::bias ? bias[n] : start == Start::sum ? c[i * width + n] : T{0};
      for (int k = 0; k < depth; ++k) sum += a[i * a_row + k * a_step] * b[k * width + n];
      right[i * width + n] = sum;
    }
  }
  product<T>(a.data(), a_row, a_step, b.data(), width, c.data(), width, rows, columns, depth, start,
             start == Start::bias ? bias.data() : nullptr);
  for (int i = 0; i < rows; ++i) {
    for (int n = 0; n < columns; ++n) {
      CHECK(c[i * width + n] == right[i * width + n], "%dx%dx%d, start %d: [%d, %d]", rows, columns, depth,
            static_cast<int>(start), i, n);
    }
  }
}

template <class T>
void check_products() {
  Random random(2);
  for (int rows = 1; rows <= 2 * row_tile + 1; ++rows) {
    for (int columns = 1; columns <= 7 * lanes<T>; columns += columns < 5 ? 1 : lanes<T> - 1) {
      for (const int depth : {0, 1, 2, 7, 30}) {
        for (const Start start : {Start::zero, Start::bias, Start::sum}) {
          for (const bool transposed : {false, true}) check_product<T>(rows, columns, depth, transposed, start, random);
        }
      }
    }
  }
}

TEST(products_equal_naive_loops) {
  check_products<float>();
  check_products<double>();
}

// A random lattice, and buffers in the padded layout with their cell of zeros at the end.
struct Linear {
  Shape shape;
  Boundary boundary;
  Offsets offsets;
  std::unique_ptr<PlanMemory> memory;
  const Plan& plan;
  int64_t stride, vectors;

  static Linear draw(Random& random) {
    const Shape shape = {1 + random.below(4), 1 + random.below(4), 1 + random.below(6)};
    const int channels = 1 + random.below(10);
    const Perception perception = random.below(7) == 0 ? Perception::gather : Perception::depthwise;
    const int filters = perception == Perception::gather ? 0 : random.below(7);
    // As many offsets as fit; their reach goes beyond the lattice, often around it.
    Linear linear(shape, boundaries[random.below(4)], random_offsets(random, 1 + random.below(11), 1 + random.below(7)),
                  channels, perception, filters);
    return linear;
  }

  Linear(const Shape& shape, Boundary boundary, const Offsets& offsets, int channels, Perception perception,
         int filters)
      : shape(shape),
        boundary(boundary),
        offsets(offsets),
        memory(make_plan(shape, channels, offsets, boundary, perception, filters)),
        plan(memory->plan),
        stride(round_up(channels, lanes<double>)),
        vectors(percept_count(plan)) {}

  // `per_cell` vectors of channels for every cell; the padding and the last cell are zero.
  std::vector<double> numbers(Random& random, int64_t vectors_in_all, int64_t zeros) const {
    std::vector<double> result((vectors_in_all + zeros) * stride);
    for (int64_t v = 0; v < vectors_in_all; ++v) {
      for (int c = 0; c < plan.channels; ++c) result[v * stride + c] = random.uniform();
    }
    return result;
  }

  // The listed cells' percepts by the definition, in a vector for all cells.
  std::vector<double> percepts(const std::vector<double>& state, const std::vector<double>& bank) const {
    std::vector<double> result((plan.cells + 1) * vectors * stride);
    for (int64_t cell = 0; cell < plan.cells; ++cell) {
      for (int32_t o = 0; o < plan.offset_count; ++o) {
        const int64_t near = neighbor(shape, boundary, cell, offsets[o]);
        if (near < 0) continue;
        for (int c = 0; c < plan.channels; ++c) {
          const double x = state[near * stride + c];
          if (plan.perception == Perception::gather) result[(cell * vectors + o) * stride + c] = x;
          for (int f = 0; f < plan.filters; ++f) {
            result[(cell * vectors + f) * stride + c] += bank[(f * plan.offset_count + o) * stride + c] * x;
          }
        }
      }
    }
    return result;
  }
};

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.begin() + std::min(a.size(), b.size()), b.begin(), 0.0);
}

TEST(perception_its_adjoint_and_its_filter_gradient_fit_together) {
  Random random(3);
  for (int trial = 0; trial < 400; ++trial) {
    const Linear linear = Linear::draw(random);
    const Plan& plan = linear.plan;
    const int64_t stride = linear.stride, vectors = linear.vectors;
    const std::vector<double> state = linear.numbers(random, plan.cells, 1);
    const std::vector<double> bank = linear.numbers(random, int64_t{plan.filters} * plan.offset_count, 0);
    std::vector<int64_t> cells;
    const bool some = random.below(2) != 0;
    for (int64_t cell = 0; cell < plan.cells; ++cell) {
      if (!some || random.below(3) != 0) cells.push_back(cell);
    }
    const int64_t count = static_cast<int64_t>(cells.size());

    std::vector<NeighborRow> neighbors(plan.offset_count);
    std::vector<double> percepts(count * vectors * stride);
    perceive<double>(plan, state.data(), stride, bank.data(), cells.data(), count, neighbors.data(), percepts.data(),
                     vectors * stride);
    const std::vector<double> right = linear.percepts(state, bank);
    for (int64_t i = 0; i < count * vectors * stride; ++i) {
      const double expected = right[cells[i / (vectors * stride)] * vectors * stride + i % (vectors * stride)];
      CHECK(std::fabs(percepts[i] - expected) < 1e-14, "trial %d: percept %g, not %g", trial, percepts[i], expected);
    }

    // <P x, y> = <x, P' y>, y being zero for the cells that are not listed.
    std::vector<double> y = linear.numbers(random, plan.cells * vectors, vectors);
    for (int64_t cell = 0, next = 0; cell < plan.cells; ++cell) {
      if (next < count && cells[next] == cell) {
        ++next;
      } else {
        std::fill_n(y.begin() + cell * vectors * stride, vectors * stride, 0.0);
      }
    }
    std::vector<int64_t> all(plan.cells);
    std::iota(all.begin(), all.end(), 0);
    std::vector<ReaderRows> readers(plan.offset_count);
    const std::vector<double> before = linear.numbers(random, plan.cells, 1);
    std::vector<double> gradient = before;
    perceive_adjoint<double>(plan, y.data(), stride, bank.data(), all.data(), plan.cells, readers.data(),
                             gradient.data());
    const double through = dot(right, y);
    CHECK(std::fabs(dot(gradient, state) - dot(before, state) - through) < 1e-12, "trial %d: adjoint %g, not %g", trial,
          dot(gradient, state) - dot(before, state), through);

    // Perception is linear in the bank, too.
    if (plan.perception == Perception::depthwise) {
      const std::vector<double> start = linear.numbers(random, int64_t{plan.filters} * plan.offset_count, 0);
      std::vector<double> bank_gradient = start;
      filter_gradient<double>(plan, state.data(), stride, y.data(), cells.data(), count, neighbors.data(),
                              bank_gradient.data());
      const double along = dot(bank_gradient, bank) - dot(start, bank);
      CHECK(std::fabs(along - through) < 1e-12, "trial %d: filter gradient %g, not %g", trial, along, through);
    }
  }
}

// Address space of which only the pages that are touched exist.
class Reservation {
 public:
  explicit Reservation(int64_t count)
      : bytes_(static_cast<size_t>(count) * sizeof(double)),
        memory_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Reservation() {
    if (*this) munmap(memory_, bytes_);
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  explicit operator bool() const { return memory_ != MAP_FAILED; }
  operator double*() const { return static_cast<double*>(memory_); }

 private:
  size_t bytes_;
  void* memory_;
};

// A number of its own for every place: an index cut to 32 bits would read another.
double mark(int64_t index) { return static_cast<double>(index % 1000003 + 1) / 1000003; }

void check_far_cells(const Shape& shape, Perception perception, int filters, Boundary boundary) {
  const Offsets offsets = {{0, 0, 0}, {0, 0, -1}, {0, 0, 1}, {0, 1, 0}, {-1, 0, 0}, {1, 0, 0}};
  const int channels = 8;  // whole vectors of every instruction set
  const Linear linear(shape, boundary, offsets, channels, perception, filters);
  const Plan& plan = linear.plan;
  const int64_t stride = linear.stride, vectors = linear.vectors, row = vectors * stride;
  const Reservation state((plan.cells + 1) * stride), percepts((plan.cells + 1) * row), gradient(plan.cells * stride);
  if (!state || !percepts || !gradient) {
    std::printf("        skipped: cannot reserve addresses for %lld cells\n", static_cast<long long>(plan.cells));
    return;
  }
  // The ends of the two last rows of the last axis.
  const int64_t last = plan.cells - 1, width = shape[2];
  const std::vector<int64_t> cells = {last - width - 1, last - width, last - 2, last - 1, last};
  const int64_t count = static_cast<int64_t>(cells.size());
  const std::vector<double> bank = [&] {
    std::vector<double> numbers(int64_t{filters} * plan.offset_count * stride);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = mark(static_cast<int64_t>(i) * 7919);
    return numbers;
  }();
  const auto opposite = [](std::array<int32_t, 3> offset) {
    for (int32_t& shift : offset) shift = -shift;
    return offset;
  };
  for (const int64_t cell : cells) {
    for (const auto& offset : offsets) {
      const int64_t near = neighbor(shape, boundary, cell, offset);
      const int64_t reader = neighbor(shape, boundary, cell, opposite(offset));  // walls and periodic have no other
      for (int64_t c = 0; c < stride && near >= 0; ++c) state[near * stride + c] = mark(near * stride + c);
      for (int64_t i = 0; i < row && reader >= 0; ++i) percepts[reader * row + i] = mark(reader * row + i + 31);
    }
  }

  std::vector<NeighborRow> neighbors(plan.offset_count);
  std::vector<double> out(count * row);
  perceive<double>(plan, state, stride, bank.data(), cells.data(), count, neighbors.data(), out.data(), row);
  std::vector<ReaderRows> readers(plan.offset_count);
  perceive_adjoint<double>(plan, percepts, stride, bank.data(), cells.data(), count, readers.data(), gradient);
  std::vector<double> bank_gradient(bank.size());
  if (perception == Perception::depthwise) {
    filter_gradient<double>(plan, state, stride, percepts, cells.data(), count, neighbors.data(), bank_gradient.data());
  }

  std::vector<double> right_bank(bank.size());
  for (int64_t i = 0; i < count; ++i) {
    std::vector<double> right(row), right_gradient(stride);
    for (int32_t o = 0; o < plan.offset_count; ++o) {
      const int64_t near = neighbor(shape, boundary, cells[i], offsets[o]);
      const int64_t reader = neighbor(shape, boundary, cells[i], opposite(offsets[o]));
      for (int64_t c = 0; c < stride; ++c) {
        const double x = near < 0 ? 0 : mark(near * stride + c);
        if (perception == Perception::gather) {
          right[o * stride + c] = x;
          if (reader >= 0) right_gradient[c] += mark(reader * row + o * stride + c + 31);
        }
        for (int f = 0; f < filters; ++f) {
          const int64_t weight = (int64_t{f} * plan.offset_count + o) * stride + c;
          right[f * stride + c] += bank[weight] * x;
          if (reader >= 0) right_gradient[c] += bank[weight] * mark(reader * row + f * stride + c + 31);
          right_bank[weight] += mark(cells[i] * row + f * stride + c + 31) * x;
        }
      }
    }
    const auto place = static_cast<long long>(cells[i]);
    for (int64_t k = 0; k < row; ++k) {
      CHECK(std::fabs(out[i * row + k] - right[k]) < 1e-13, "cell %lld: %g, not %g", place, out[i * row + k], right[k]);
    }
    for (int64_t c = 0; c < stride; ++c) {
      const double found = gradient[cells[i] * stride + c];
      CHECK(std::fabs(found - right_gradient[c]) < 1e-13, "cell %lld: %g, not %g", place, found, right_gradient[c]);
    }
  }
  for (size_t i = 0; i < bank.size(); ++i) {
    CHECK(std::fabs(bank_gradient[i] - right_bank[i]) < 1e-12, "bank %zu: %g, not %g", i, bank_gradient[i],
          right_bank[i]);
  }
}

TEST(perception_finds_cells_beyond_32_bit_indices) {
  const std::pair<Perception, int> kinds[] = {
      {Perception::gather, 0}, {Perception::depthwise, 2}, {Perception::depthwise, 5}};
  for (const auto& [perception, filters] : kinds) {
    for (const Boundary boundary : {Boundary::walls, Boundary::periodic}) {
      check_far_cells({257, 1024, 1024}, perception, filters, boundary);   // 2^31 < numbers < 2^32
      check_far_cells({2049, 1024, 1024}, perception, filters, boundary);  // 2^31 < cells, 2^34 < numbers
    }
  }
}

TEST(storage_finds_elements_beyond_32_bit_indices) {
  const int64_t index = (int64_t{1} << 32) + 5, count = 3;
  const Reservation reservation(index + count);
  if (!reservation) {
    std::printf("        skipped: cannot reserve addresses\n");
    return;
  }
  double* const base = reservation;
  const struct {
    Storage storage;
    int64_t size;
  } storages[] = {{Storage::float64, 8}, {Storage::float32, 4}, {Storage::bfloat16, 2}, {Storage::float16, 2}};
  for (const auto& [storage, size] : storages) {
    void* const at = element(storage, static_cast<void*>(base), index);
    CHECK(static_cast<char*>(at) - reinterpret_cast<char*>(base) == index * size, "storage of %d bytes", int(size));
    if (storage == Storage::float64) {
      const double values[] = {1, -2, 3};
      double again[count];
      encode<double>(storage, values, count, at);
      decode<double>(storage, element(storage, static_cast<const void*>(base), index), count, again);
      for (int i = 0; i < count; ++i) CHECK(again[i] == values[i], "%g", again[i]);
    } else {
      const float values[] = {1, -2, 3};
      float again[count];
      encode<float>(storage, values, count, at);
      decode<float>(storage, element(storage, static_cast<const void*>(base), index), count, again);
      for (int i = 0; i < count; ++i) CHECK(again[i] == values[i], "%g", double(again[i]));
    }
  }
}

}  // namespace
}  // namespace cube
