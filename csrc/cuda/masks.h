// Which cells a step changes: the fire mask, the write mask and the alive mask.
#pragma once
#include "block.h"
#include "numbers.h"
#include "tables.h"

namespace cube {
namespace {

// The word of a cell from Philox4x32-10 (Salmon et al., SC 2011).
__device__ inline uint32_t random_word(uint64_t seed, uint32_t sample, uint32_t step, uint64_t cell) {
  uint32_t word[4] = {static_cast<uint32_t>(cell / 4), step, sample, static_cast<uint32_t>(cell >> 34)};
  uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xD2511F53} * word[0], second = uint64_t{0xCD9E8D57} * word[2];
    const uint32_t a = static_cast<uint32_t>(second >> 32) ^ word[1] ^ low;
    const uint32_t c = static_cast<uint32_t>(first >> 32) ^ word[3] ^ high;
    word[1] = static_cast<uint32_t>(second);
    word[3] = static_cast<uint32_t>(first);
    word[0] = a;
    word[2] = c;
    low += 0x9E3779B9;
    high += 0xBB67AE85;
  }
  return cell % 4 == 0 ? word[0] : cell % 4 == 1 ? word[1] : cell % 4 == 2 ? word[2] : word[3];
}

// What decides over a step of one sample, beside its state.
struct Moment {
  uint64_t seed;
  uint32_t drawn_sample, drawn_step;  // as the fire mask counts them
  int64_t step;                       // of the call
  const uint8_t* write_mask;          // of the sample; null if all cells may change
};

// Whether a step of the call computes the cell; one beside a cut face it does not.
__device__ inline bool computes(const Tables& tables, const Moment& moment, int cell) {
  return tables.lifetime == nullptr || moment.step < tables.lifetime[cell];
}

__device__ inline bool writable(const Tables& tables, const Moment& moment, int cell) {
  return (moment.write_mask == nullptr || moment.write_mask[cell] != 0) && computes(tables, moment, cell);
}

__device__ inline bool fires(const Plan& plan, const Tables& tables, const Moment& moment, int cell) {
  return plan.fire_threshold >> 32 != 0 ||
         random_word(moment.seed, moment.drawn_sample, moment.drawn_step,
                     static_cast<uint64_t>(tables.number != nullptr ? tables.number[cell] : cell)) <
             plan.fire_threshold;
}

// Whether the alive channel's largest value over the cell's neighborhood exceeds the threshold.
template <class States>
__device__ inline bool lives(const Plan& plan, const Tables& tables, const States& states, int cell) {
  const float threshold = static_cast<float>(plan.alive_threshold);
  for (int o = 0; o < plan.pool_count; ++o) {
    const int near = tables.pool[o * static_cast<int>(plan.cells) + cell];
    if (near >= 0 && widened(states.of(near)[plan.alive_channel]) > threshold) return true;
  }
  return false;
}

}  // namespace
}  // namespace cube
