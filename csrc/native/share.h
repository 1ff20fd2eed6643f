// How a call's threads share the batch and a sample's cells.
//
// A crew of threads carries one sample at a time in its own cache; several crews share the batch. Sums over cells or
// samples are taken in a partition that depends on the problem alone and added up in a fixed tree, so that every
// result is bitwise the same for any number of threads.
#pragma once
#include "crew.h"
#include "memory.h"

namespace cube {
namespace {

constexpr int64_t sum_parts = 32;  // parts of the batch (and of a sample) with sums of their own

// How a crew's members share the threads, the batch and a sample's cells.
struct Split {
  Split(int threads, int64_t units, int64_t cells)
      : crews(smaller(threads, units)), members(smaller(threads / crews, round_up(cells, block_cells) / block_cells)) {}
  int64_t crews;
  int64_t members;
};

// Members of one crew, and the unit of work (sample or group of samples) they are at.
struct CrewState {
  explicit CrewState(int members) : barrier(members) {}
  Barrier barrier;
  int64_t unit = 0;
};

// One thread's place in its crew.
struct Member {
  int64_t crew, index, count;
  Barrier& barrier;
};

// Calls work(Member, unit) with all members of a crew for every unit in [0, units).
template <class Work>
void share_units(Crew& threads, const Split& split, int64_t units, const Work& work) {
  struct Context {
    const Split& split;
    int64_t units;
    const Work& work;
    Counter counter;
    List<CrewState> crews;
  } context{split, units, work, {}, List<CrewState>(split.crews, static_cast<int>(split.members))};
  threads.run(
      [](void* opaque, int thread) {
        Context& c = *static_cast<Context*>(opaque);
        const int64_t crew = thread / c.split.members;
        if (crew >= c.split.crews) return;
        CrewState& state = c.crews[crew];
        const Member member{crew, thread % c.split.members, c.split.members, state.barrier};
        for (;;) {
          if (member.index == 0) state.unit = c.counter.next();
          state.barrier.wait();
          const int64_t unit = state.unit;
          if (unit >= c.units) return;
          c.work(member, unit);
          state.barrier.wait();
        }
      },
      &context);
}

// Groups of samples, and slabs of a sample's cells, that have sums of their own.
struct Parts {
  Parts(int64_t batch, int64_t cells)
      : batch(batch),
        groups(smaller(batch, sum_parts)),
        slabs(groups == 0 ? 0 : smaller(sum_parts / groups, (cells + block_cells - 1) / block_cells)) {}
  CellRange samples(int64_t group) const { return {share(batch, groups, group), share(batch, groups, group + 1)}; }
  int64_t total() const { return groups * slabs; }
  int64_t batch, groups, slabs;
};

// The slabs of one member, and the cells they hold.
struct MemberSlabs {
  MemberSlabs(const Parts& parts, int64_t cells, const Member& member)
      : first(share(parts.slabs, member.count, member.index)),
        last(share(parts.slabs, member.count, member.index + 1)),
        range{cell_range(cells, parts.slabs, first).begin, 0} {
    range.end = first < last ? cell_range(cells, parts.slabs, last - 1).end : range.begin;
  }
  int64_t first, last;
  CellRange range;
};

// The sum of `count` parts of `size` numbers each, left in the first: a binary tree over the parts.
template <class T>
void add_parts(Crew& threads, T* parts, int64_t count, int64_t size) {
  struct Context {
    T* parts;
    int64_t count, size, members;
  } context{parts, count, size, threads.size()};
  threads.run(
      [](void* opaque, int member) {
        const Context& c = *static_cast<const Context*>(opaque);
        const int64_t begin = share(c.size, c.members, member), end = share(c.size, c.members, member + 1);
        for (int64_t gap = 1; gap < c.count; gap *= 2) {
          for (int64_t part = 0; part + gap < c.count; part += 2 * gap) {
            T* to = c.parts + part * c.size;
            const T* from = c.parts + (part + gap) * c.size;
            for (int64_t i = begin; i < end; ++i) to[i] += from[i];
          }
        }
      },
      &context);
}

}  // namespace
}  // namespace cube
