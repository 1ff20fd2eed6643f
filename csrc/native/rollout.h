// The rollout of a rule and its backward pass on one instruction set: a whole sample's steps in one crew's cache.
#pragma once
#include <cmath>

#include "share.h"
#include "step.h"

namespace cube {
namespace {

// What the caller's arrays hold for one sample.
template <class T>
struct Sample {
  const Plan& plan;
  const Schedule& schedule;
  int64_t stride, index;

  int64_t size() const { return plan.cells * plan.channels; }
  // Into and out of the padded layout: the range's cells of the sample in slice `slice` of [slices, batch, ...].
  void read(const void* from, int64_t slice, const CellRange& range, T* to) const {
    read(schedule.storage, from, slice, range, to);
  }
  void read(Storage storage, const void* from, int64_t slice, const CellRange& range, T* to) const {
    decode_rows<T>(storage, at(storage, from, slice, range), range.end - range.begin, plan.channels,
                   to + range.begin * stride, stride);
  }
  void write(const T* from, void* to, int64_t slice, const CellRange& range) const {
    write(from, schedule.storage, to, slice, range);
  }
  void write(const T* from, Storage storage, void* to, int64_t slice, const CellRange& range) const {
    encode_rows<T>(storage, from + range.begin * stride, range.end - range.begin, plan.channels,
                   const_cast<void*>(at(storage, to, slice, range)), stride);
  }
  void add(const void* from, int64_t slice, const CellRange& range, T* to) const {
    Buffer<T> row(plan.channels);
    for (int64_t cell = range.begin; cell < range.end; ++cell) {
      decode<T>(schedule.storage, at(schedule.storage, from, slice, {cell, cell + 1}), plan.channels, row);
      for (int64_t c = 0; c < plan.channels; ++c) to[cell * stride + c] += row[c];
    }
  }
  void read_drive(const void* from, const CellRange& range, T* to) const {
    if (plan.drive == 0) return;
    decode<T>(schedule.storage, element(schedule.storage, from, (drive_start() + range.begin) * plan.drive),
              (range.end - range.begin) * plan.drive, to + range.begin * plan.drive);
  }
  int64_t drive_start() const { return schedule.shared_drive ? 0 : index * plan.cells; }
  Moment moment(const uint8_t* write_mask, int64_t step) const {
    const bool masked = write_mask != nullptr;
    return {schedule.seed, schedule.first_sample + index, schedule.first_step + step, step,
            masked ? write_mask + (schedule.shared_write_mask ? 0 : index * plan.cells) : nullptr};
  }

 private:
  const void* at(Storage storage, const void* base, int64_t slice, const CellRange& range) const {
    return element(storage, base, (slice * schedule.batch + index) * size() + range.begin * plan.channels);
  }
};

// Squared sizes of a block of cells' state and of its change, so that their sum does not depend on the threads.
struct Movement {
  double change, size;
};

template <class T>
void measure_movement(const T* state, const T* next, int64_t stride, const CellRange& range, Movement* blocks) {
  for (int64_t first = range.begin; first < range.end; first += block_cells) {
    double change = 0, size = 0;
    for (int64_t i = first * stride; i < smaller(first + block_cells, range.end) * stride; ++i) {
      const double before = state[i], moved = next[i] - before;
      change += moved * moved;
      size += before * before;
    }
    blocks[first / block_cells] = {change, size};
  }
}

inline bool has_converged(const Movement* blocks, int64_t count, double tolerance) {
  double change = 0, size = 0;
  for (int64_t i = 0; i < count; ++i) {
    change += blocks[i].change;
    size += blocks[i].size;
  }
  return std::sqrt(change) <= tolerance * std::sqrt(size);
}

template <class T>
void rollout_forward(const Plan& plan, const ForwardCall& call) {
  const Schedule& schedule = call.schedule;
  if (schedule.batch == 0) return;
  const Layout<T> layout(plan);
  const PackedWeights<T> weights(plan, layout, schedule.storage, call.weights, false, multiplies_bf16<T>(schedule));
  const Task<T> task(plan, layout, weights, schedule);
  Crew threads(schedule.threads, schedule.patience);
  const Split split(threads.size(), schedule.batch, plan.cells);
  const int64_t blocks = (plan.cells + block_cells - 1) / block_cells;
  const bool can_die = plan.alive_channel >= 0, can_stop = schedule.tolerance >= 0;
  const List<Scratch<T>> scratch(split.crews * split.members, plan, layout, false);
  // The last step writes where the caller wants its state, if that is laid out as ours are.
  const bool direct = lies_like<T>(schedule.storage, plan, layout);
  const List<CellRows<T>> states(split.crews, direct && schedule.steps == 1 ? 1 : 2, plan.cells, layout.stride);
  const List<Buffer<T>> drives(split.crews, plan.cells * plan.drive);
  const List<Buffer<uint8_t>> lives(split.crews, can_die ? plan.cells : 0);
  const List<Buffer<Movement>> movements(split.crews, can_stop ? blocks : 0);

  share_units(threads, split, schedule.batch, [&](const Member& member, int64_t index) {
    const Sample<T> sample{plan, schedule, layout.stride, index};
    const CellRange range = cell_range(plan.cells, member.count, member.index);
    const Scratch<T>& own = scratch[member.crew * member.count + member.index];
    const auto wait = [&] { member.barrier.wait(); };
    T* const drive = drives[member.crew];
    uint8_t* const living = lives[member.crew];
    Movement* const movement = movements[member.crew];
    T* state = states[member.crew].at(0);
    T* next = states[member.crew].at(1);
    T* const result = direct ? static_cast<T*>(call.result) + index * sample.size() : nullptr;

    sample.read(call.state, 0, range, state);
    sample.read_drive(call.drive, range, drive);
    int64_t step = 0;
    for (; step < schedule.steps; ++step) {
      wait();
      if (call.checkpoints != nullptr && step > 0 && step % schedule.checkpoint_every == 0) {
        sample.write(state, call.checkpoints, step / schedule.checkpoint_every - 1, range);
      }
      const Moment moment = sample.moment(call.write_mask, step);
      if (direct && step + 1 == schedule.steps) next = result;
      propose(task, moment, state, drive, range, own, living, [&](int64_t) { return own.rows(); }, next);
      settle(task, moment, range, wait, living, next);
      if (can_stop) measure_movement(state, next, layout.stride, range, movement);
      T* const old = state;
      state = next;
      next = old;
      if (schedule.trajectory_every > 0 && (step + 1) % schedule.trajectory_every == 0) {
        sample.write(state, call.trajectory, (step + 1) / schedule.trajectory_every - 1, range);
      }
      if (can_stop) {
        wait();
        if (has_converged(movement, blocks, schedule.tolerance)) {
          ++step;
          break;
        }
      }
    }
    if (schedule.trajectory_every > 0) {  // a sample that has stopped stays as it is
      for (int64_t kept = step / schedule.trajectory_every; kept < schedule.steps / schedule.trajectory_every; ++kept) {
        sample.write(state, call.trajectory, kept, range);
      }
    }
    if (state != result) sample.write(state, call.result, 0, range);
    if (call.taken != nullptr && member.index == 0) call.taken[index] = step;
  });
}

// Rows of the steps of a segment that are kept from its replay for the backward pass, in place of computing them
// again: as many of the last steps as fit a share of the cache.
template <class T>
class KeptRows {
 public:
  KeptRows(const Plan& plan, const Layout<T>& layout, int64_t replayed)
      : layout_(layout),
        rows_(plan.cells + row_tile),
        steps_(smaller(replayed, budget / (rows_ * (layout.inputs + layout.hidden + layout.heads) *
                                           static_cast<int64_t>(sizeof(T))))),
        inputs_(steps_ * rows_ * layout.inputs, Fill::nothing),
        hidden_(steps_ * rows_ * layout.hidden, Fill::nothing),
        heads_(steps_ * rows_ * layout.heads, Fill::nothing) {}
  int64_t steps() const { return steps_; }
  Rows<T> at(int64_t step, int64_t row) const {
    const int64_t first = step * rows_ + row;
    return {inputs_ + first * layout_.inputs, hidden_ + first * layout_.hidden, heads_ + first * layout_.heads};
  }

 private:
  static constexpr int64_t budget = int64_t{8} << 20;  // bytes
  const Layout<T>& layout_;
  int64_t rows_, steps_;
  Buffer<T> inputs_, hidden_, heads_;
};

template <class T>
void rollout_backward(const Plan& plan, const BackwardCall& call) {
  const Schedule& schedule = call.schedule;
  const Layout<T> layout(plan);
  const GradientLayout<T> at(plan, layout);
  const Parts parts(schedule.batch, plan.cells);
  const int64_t segment = smaller(schedule.checkpoint_every, schedule.steps);
  const bool can_die = plan.alive_channel >= 0;
  // The last step of a segment is replayed only to learn which cells died in it.
  const int64_t unreplayed = can_die ? 0 : 1;

  const PackedWeights<T> weights(plan, layout, schedule.storage, call.weights, true, multiplies_bf16<T>(schedule));
  const Task<T> task(plan, layout, weights, schedule);
  Crew threads(schedule.threads, schedule.patience);
  const Split split(threads.size(), larger(parts.groups, 1), plan.cells);
  const List<Scratch<T>> scratch(split.crews * split.members, plan, layout, true);
  const List<CellRows<T>> segments(split.crews, segment + 1 - unreplayed, plan.cells, layout.stride);
  const List<Buffer<uint8_t>> lives(split.crews, can_die ? segment * plan.cells : 0);
  const List<KeptRows<T>> kept_rows(split.crews, plan, layout, larger(segment - unreplayed, 0));
  // The first step back reads the caller's gradient, the last one writes it, where it is laid out as ours are.
  const bool alike = lies_like<T>(call.gradient_storage, plan, layout);
  const bool reads = alike && call.trajectory_gradient == nullptr;
  const int64_t between = reads ? smaller(2, larger(schedule.steps - 1, 0)) : 2;
  const List<CellRows<T>> state_gradients(split.crews, between, plan.cells, layout.stride);
  const List<CellRows<T>> percept_gradients(split.crews, 1, plan.cells, layout.percepts);
  const List<Buffer<T>> drives(split.crews, plan.cells * plan.drive);
  const List<Buffer<T>> drive_gradients(split.crews, schedule.shared_drive ? 0 : plan.cells * plan.drive);
  const Buffer<T> partials(larger(parts.total(), 1) * at.size);
  const Buffer<T> shared_drive_gradients(schedule.shared_drive ? larger(parts.groups, 1) * plan.cells * plan.drive : 0);

  share_units(threads, split, parts.groups, [&](const Member& member, int64_t group) {
    const MemberSlabs slabs(parts, plan.cells, member);
    const CellRange& range = slabs.range;
    const Scratch<T>& own = scratch[member.crew * member.count + member.index];
    const KeptRows<T>& kept = kept_rows[member.crew];
    const auto wait = [&] { member.barrier.wait(); };
    const auto for_each_slab = [&](auto&& work) {
      for (int64_t slab = slabs.first; slab < slabs.last; ++slab) work(slab, cell_range(plan.cells, parts.slabs, slab));
    };
    const CellRows<T>& states = segments[member.crew];
    uint8_t* const segment_lives = lives[member.crew];
    T* const percept_gradient = percept_gradients[member.crew].at(0);
    T* const drive = drives[member.crew];
    T* const drive_gradient = schedule.shared_drive ? shared_drive_gradients + group * plan.cells * plan.drive
                                                    : static_cast<T*>(drive_gradients[member.crew]);
    const CellRows<T>& gradients = state_gradients[member.crew];

    const CellRange samples = parts.samples(group);
    for (int64_t index = samples.begin; index < samples.end; ++index) {
      const Sample<T> sample{plan, schedule, layout.stride, index};
      const int64_t steps = call.taken != nullptr ? call.taken[index] : schedule.steps;
      const int64_t every = call.trajectory_gradient != nullptr ? schedule.trajectory_every : 0;
      sample.read_drive(call.drive, range, drive);
      if (plan.drive > 0 && !schedule.shared_drive) {
        std::memset(drive_gradient + range.begin * plan.drive, 0, (range.end - range.begin) * plan.drive * sizeof(T));
      }
      const T* gradient = gradients.at(0);
      if (reads) {
        gradient = static_cast<const T*>(call.result_gradient) + index * sample.size();
      } else {
        sample.read(call.gradient_storage, call.result_gradient, 0, range, gradients.at(0));
      }
      T* const result = alike ? static_cast<T*>(call.state_gradient) + index * sample.size() : nullptr;
      // The states of the trajectory from the last step on are the result.
      for (int64_t slice = every > 0 ? larger(1, (steps + every - 1) / every) : 1;
           every > 0 && slice <= schedule.steps / every; ++slice) {
        sample.add(call.trajectory_gradient, slice - 1, range, gradients.at(0));
      }

      int64_t segment_end = steps;
      while (segment_end > 0) {
        const int64_t start = (segment_end - 1) / schedule.checkpoint_every * schedule.checkpoint_every;
        const int64_t replayed = segment_end - start - unreplayed;
        const int64_t first_kept = start + larger(replayed - kept.steps(), 0), end_kept = start + replayed;
        const auto kept_at = [&](int64_t step, int64_t row) {
          const bool is_kept = step >= first_kept && step < end_kept;
          return is_kept ? kept.at(step - first_kept, row) : Rows<T>{nullptr, nullptr, nullptr};
        };
        sample.read(start == 0 ? call.state : call.checkpoints, start == 0 ? 0 : start / schedule.checkpoint_every - 1,
                    range, states.at(0));
        wait();
        for (int64_t step = start; step < start + replayed; ++step) {
          const Moment moment = sample.moment(call.write_mask, step);
          const T* const state = states.at(step - start);
          T* const next = states.at(step - start + 1);
          uint8_t* const living = segment_lives + (step - start) * plan.cells;
          for_each_slab([&](int64_t, const CellRange& cells) {
            const auto rows_at = [&](int64_t first) {
              const Rows<T> rows = kept_at(step, cells.begin + first);
              return rows.inputs != nullptr ? rows : own.rows();
            };
            propose(task, moment, state, drive, cells, own, living, rows_at, next);
          });
          settle(task, moment, range, wait, living, next);
          wait();
        }
        for (int64_t step = segment_end - 1; step >= start; --step) {
          const Moment moment = sample.moment(call.write_mask, step);
          T* next_gradient = gradients.at(gradient == gradients.at(0) ? 1 : 0);
          if (step == 0 && result != nullptr) next_gradient = result;
          for_each_slab([&](int64_t slab, const CellRange& cells) {
            propose_gradient(
                task, moment, states.at(step - start), drive, segment_lives + (step - start) * plan.cells, cells, own,
                [&](int64_t first) { return kept_at(step, cells.begin + first); }, at,
                StepGradients<T>{gradient, next_gradient, percept_gradient, drive_gradient,
                                 partials + (group * parts.slabs + slab) * at.size});
          });
          wait();
          const int64_t count = range.end - range.begin;
          for (int64_t i = 0; i < count; ++i) own.cells[i] = range.begin + i;
          perceive_adjoint<T>(plan, percept_gradient, layout.stride, weights.bank, own.cells, count, own.readers,
                              next_gradient);
          if (every > 0 && step > 0 && step % every == 0) {
            sample.add(call.trajectory_gradient, step / every - 1, range, next_gradient);
          }
          wait();
          gradient = next_gradient;
        }
        segment_end = start;
      }
      if (gradient != result) sample.write(gradient, call.gradient_storage, call.state_gradient, 0, range);
      if (plan.drive > 0 && !schedule.shared_drive) {
        encode<T>(schedule.storage, drive_gradient + range.begin * plan.drive, (range.end - range.begin) * plan.drive,
                  element(schedule.storage, call.drive_gradient, (sample.drive_start() + range.begin) * plan.drive));
      }
    }
  });

  add_parts<T>(threads, partials, parts.total(), at.size);
  store_gradients<T>(plan, layout, at, schedule.storage, partials, call.gradients);
  if (schedule.shared_drive) {
    add_parts<T>(threads, shared_drive_gradients, parts.groups, plan.cells * plan.drive);
    encode<T>(schedule.storage, shared_drive_gradients, plan.cells * plan.drive, call.drive_gradient);
  }
}

}  // namespace
}  // namespace cube
