// Which cells a step changes: the fire mask, the write mask and the alive mask.
#pragma once
#include "perceive.h"

namespace cube {
namespace {

struct Words {
  uint32_t word[4];
};

// Philox4x32-10 (Salmon et al., SC 2011).
inline Words philox(Words counter, uint64_t key) {
  uint32_t *w = counter.word, low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53} * w[0], second = uint64_t{0xCD9E8D57} * w[2];
    const uint32_t a = static_cast<uint32_t>(second >> 32) ^ w[1] ^ low;
    const uint32_t c = static_cast<uint32_t>(first >> 32) ^ w[3] ^ high;
    w[1] = static_cast<uint32_t>(second);
    w[3] = static_cast<uint32_t>(first);
    w[0] = a;
    w[2] = c;
    low += 0x9E3779B9;
    high += 0xBB67AE85;
  }
  return counter;
}

// What decides over a step of one sample, beside its state.
struct Moment {
  uint64_t seed;
  int64_t drawn_sample, drawn_step;  // as the fire mask counts them
  int64_t step;                      // of the call
  const uint8_t* write_mask;         // of the sample; null if all cells may change
};

inline bool writable(const Plan& plan, const Moment& moment, int64_t cell) {
  return (moment.write_mask == nullptr || moment.write_mask[cell] != 0) &&
         (plan.lifetime == nullptr || moment.step < plan.lifetime[cell]);
}

// Lists the cells of the range that compute a change: they may be written, fire, and, where death before the update
// settles it, live. `living` is null where nothing was measured before the update. Returns their number.
inline int64_t list_active(const Plan& plan, const Moment& moment, const uint8_t* living, int64_t begin, int64_t end,
                           int64_t* cells) {
  const bool always = plan.fire_threshold >> 32 != 0;
  int64_t count = 0;
  Words words{};
  int64_t drawn = -1;  // which four cells the words are of
  for (int64_t cell = begin; cell < end; ++cell) {
    const int64_t number = plan.number != nullptr ? plan.number[cell] : cell;
    if (!always && number / 4 != drawn) {
      drawn = number / 4;
      words = philox({{static_cast<uint32_t>(drawn), static_cast<uint32_t>(moment.drawn_step),
                       static_cast<uint32_t>(moment.drawn_sample), static_cast<uint32_t>(drawn >> 32)}},
                     moment.seed);
    }
    cells[count] = cell;
    count += (always || words.word[number % 4] < plan.fire_threshold) & writable(plan, moment, cell) &
             (living == nullptr || living[cell] != 0);
  }
  return count;
}

// living[cell] &= whether the alive channel's largest value over the cell's neighborhood exceeds the threshold.
template <class T>
void measure_life(const Plan& plan, const T* state, int64_t stride, int64_t begin, int64_t end, uint8_t* living) {
  const int32_t width = plan.axis[2].size, height = plan.axis[1].size;
  const T threshold = static_cast<T>(plan.alive_threshold);
  for (int64_t cell = begin; cell < end; ++cell) {
    const int64_t row = cell / width, x = cell - row * width;
    bool lives = false;
    for (int32_t o = 0; o < plan.pool_count && !lives; ++o) {
      const NeighborRow neighbors = neighbor_row(plan, plan.pool_offsets[o], static_cast<int32_t>(row / height),
                                                 static_cast<int32_t>(row % height));
      const int64_t near = neighbor_cell(plan, neighbors, x);
      lives = near < plan.cells && state[near * stride + plan.alive_channel] > threshold;
    }
    living[cell] &= lives;
  }
}

}  // namespace
}  // namespace cube
