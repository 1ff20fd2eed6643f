// Perception alone, its adjoint and its filter gradient for a batch of states.
#pragma once
#include "perceive.h"
#include "share.h"
#include "storage.h"

namespace cube {
namespace {

// One batch's work shared by threads, a sample at a time: into the padded layout, then work(range, padded, result).
template <class T>
class BatchPerception {
 public:
  BatchPerception(const Plan& plan, const PerceptionCall& call)
      : plan_(plan),
        call_(call),
        stride_(round_up(plan.channels, lanes<T>)),
        vectors_(percept_count(plan)),
        bank_(static_cast<int64_t>(plan.filters) * plan.offset_count * stride_),
        threads_(call.threads, call.patience) {
    if (call.bank != nullptr) {
      decode_rows<T>(call.storage, call.bank, static_cast<int64_t>(plan.filters) * plan.offset_count, plan.channels,
                     bank_, stride_);
    }
  }

  void forward() {
    each_sample(1, vectors_, call_.state, [&](const CellRange& range, const T* state, T* percepts, Scratch& scratch) {
      perceive<T>(plan_, state, stride_, bank_, scratch.list(range), range.end - range.begin, scratch.neighbors,
                  percepts + range.begin * vectors_ * stride_, vectors_ * stride_);
    });
  }

  void adjoint() {
    each_sample(vectors_, 1, call_.percepts,
                [&](const CellRange& range, const T* percepts, T* state, Scratch& scratch) {
                  std::memset(state + range.begin * stride_, 0, (range.end - range.begin) * stride_ * sizeof(T));
                  perceive_adjoint<T>(plan_, percepts, stride_, bank_, scratch.list(range), range.end - range.begin,
                                      scratch.readers, state);
                });
  }

  void bank_gradient() {
    const Parts parts(call_.batch, plan_.cells);
    const int64_t size = static_cast<int64_t>(plan_.filters) * plan_.offset_count * stride_;
    const Split split(threads_.size(), larger(parts.groups, 1), plan_.cells);
    const List<CellRows<T>> states(split.crews, 1, plan_.cells, stride_);
    const List<CellRows<T>> percepts(split.crews, 1, plan_.cells, vectors_ * stride_);
    const List<Scratch> scratch(split.crews * split.members, plan_);
    const Buffer<T> partials(larger(parts.total(), 1) * size);
    share_units(threads_, split, parts.groups, [&](const Member& member, int64_t group) {
      const MemberSlabs slabs(parts, plan_.cells, member);
      Scratch& own = scratch[member.crew * member.count + member.index];
      const CellRange samples = parts.samples(group);
      for (int64_t index = samples.begin; index < samples.end; ++index) {
        member.barrier.wait();
        read(call_.state, 1, index, slabs.range, states[member.crew].at(0));
        read(call_.percepts, vectors_, index, slabs.range, percepts[member.crew].at(0));
        member.barrier.wait();
        for (int64_t slab = slabs.first; slab < slabs.last; ++slab) {
          const CellRange range = cell_range(plan_.cells, parts.slabs, slab);
          filter_gradient<T>(plan_, states[member.crew].at(0), stride_, percepts[member.crew].at(0), own.list(range),
                             range.end - range.begin, own.neighbors, partials + (group * parts.slabs + slab) * size);
        }
      }
    });
    add_parts<T>(threads_, partials, parts.total(), size);
    encode_rows<T>(call_.storage, partials, static_cast<int64_t>(plan_.filters) * plan_.offset_count, plan_.channels,
                   call_.result, stride_);
  }

 private:
  struct Scratch {
    explicit Scratch(const Plan& plan) : neighbors(plan.offset_count), readers(plan.offset_count), cells(plan.cells) {}
    const int64_t* list(const CellRange& range) {
      for (int64_t i = 0; i < range.end - range.begin; ++i) cells[i] = range.begin + i;
      return cells;
    }
    Buffer<NeighborRow> neighbors;
    Buffer<ReaderRows> readers;
    Buffer<int64_t> cells;
  };

  void read(const void* from, int64_t vectors, int64_t sample, const CellRange& range, T* to) const {
    decode_rows<T>(call_.storage,
                   element(call_.storage, from, (sample * plan_.cells + range.begin) * vectors * plan_.channels),
                   (range.end - range.begin) * vectors, plan_.channels, to + range.begin * vectors * stride_, stride_);
  }

  // `from` and `to`: vectors a cell of what is read and of the result.
  template <class Work>
  void each_sample(int64_t from, int64_t to, const void* source, const Work& work) {
    const Split split(threads_.size(), larger(call_.batch, 1), plan_.cells);
    const List<CellRows<T>> inputs(split.crews, 1, plan_.cells, from * stride_);
    const List<CellRows<T>> results(split.crews, 1, plan_.cells, to * stride_);
    const List<Scratch> scratch(split.crews * split.members, plan_);
    share_units(threads_, split, call_.batch, [&](const Member& member, int64_t sample) {
      const CellRange range = cell_range(plan_.cells, member.count, member.index);
      T* const result = results[member.crew].at(0);
      read(source, from, sample, range, inputs[member.crew].at(0));
      member.barrier.wait();
      work(range, inputs[member.crew].at(0), result, scratch[member.crew * member.count + member.index]);
      encode_rows<T>(call_.storage, result + range.begin * to * stride_, (range.end - range.begin) * to, plan_.channels,
                     element(call_.storage, call_.result, (sample * plan_.cells + range.begin) * to * plan_.channels),
                     stride_);
    });
  }

  const Plan& plan_;
  const PerceptionCall& call_;
  int64_t stride_, vectors_;
  Buffer<T> bank_;
  Crew threads_;
};

template <class T>
void perception_forward(const Plan& plan, const PerceptionCall& call) {
  BatchPerception<T>(plan, call).forward();
}
template <class T>
void perception_adjoint(const Plan& plan, const PerceptionCall& call) {
  BatchPerception<T>(plan, call).adjoint();
}
template <class T>
void perception_bank_gradient(const Plan& plan, const PerceptionCall& call) {
  BatchPerception<T>(plan, call).bank_gradient();
}

}  // namespace
}  // namespace cube
