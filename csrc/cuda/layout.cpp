#include "layout.h"

#include <algorithm>

namespace cube {
namespace {

constexpr int64_t alignment = 16;
constexpr int row_padding = 16;  // bytes

// How a tile and the weights may share what is left: tiles of fewer rows reuse weights less, weights that do not fit
// are read through the cache.
struct Choice {
  int tile_rows;
  bool weights_shared;
};
constexpr Choice choices[] = {{64, true}, {32, true}, {64, false}, {32, false}};
constexpr Choice least_choice = {16, false};

// Hands out a block's shared memory and its slice of the scratch.
class Allocator {
 public:
  explicit Allocator(int64_t shared_limit) : limit_(shared_limit) {}
  Place shared(int64_t bytes) { return {true, advance(shared_bytes, bytes)}; }
  Place scratch(int64_t bytes) { return {false, advance(slice_bytes, bytes)}; }
  Place shared_if_it_fits(int64_t bytes) { return fits(bytes) ? shared(bytes) : scratch(bytes); }
  bool fits(int64_t bytes) const { return shared_bytes + round_up(bytes, alignment) <= limit_; }

  int64_t shared_bytes = 0, slice_bytes = 0;

 private:
  static int64_t advance(int64_t& end, int64_t bytes) {
    const int64_t start = end;
    end += round_up(bytes, alignment);
    return start;
  }
  int64_t limit_;
};

class Planner {
 public:
  Planner(const Plan& plan, Storage storage, int blocks)
      : plan_(plan),
        widths_(plan),
        number_(storage_bytes(storage)),
        weights_(plan, widths_, number_),
        blocks_(blocks),
        cells_bits_(blocks > 1 ? bits_for((plan.cells + blocks - 1) / blocks) : 0),
        cells_(blocks > 1 ? int64_t{1} << cells_bits_ : plan.cells) {}

  Layout forward(Choice choice, int64_t limit) const {
    Allocator memory(limit);
    Layout layout = step(choice, memory);
    layout.living = memory.shared(lives());
    layout.next = memory.shared_if_it_fits(state_bytes());
    return finished(layout, memory);
  }

  Layout backward(Choice choice, int64_t segment, int64_t limit) const {
    Allocator memory(limit);
    Layout layout = step(choice, memory);
    const int64_t gradient_bytes = round_up(cells_ * widths_.stride * float_bytes, alignment);
    const int64_t weight_bytes = int64_t{WeightLayout(plan_, widths_, float_bytes).size} * float_bytes;
    layout.slopes = memory.shared(int64_t{layout.tile_rows} * layout.slope_stride * float_bytes);
    // The more often a step reads and writes it, the earlier it gets its place.
    // Either holds the new states while a segment is replayed, and a cluster's blocks, which read those, take both for
    // of one kind.
    const bool both_shared = blocks_ == 1 || memory.fits(2 * gradient_bytes);
    for (Place* place : {&layout.gradient, &layout.other_gradient}) {
      *place = both_shared ? memory.shared_if_it_fits(gradient_bytes) : memory.scratch(gradient_bytes);
    }
    layout.next = layout.other_gradient;  // in use while the segment is replayed, when that is not
    layout.weight_gradient = memory.shared_if_it_fits(weight_bytes);
    layout.percept_gradient = memory.shared_if_it_fits(cells_ * widths_.percepts * float_bytes);
    layout.drive_gradient = memory.scratch(cells_ * widths_.drive * float_bytes);
    layout.segment = memory.scratch(segment * state_bytes());
    layout.segment_lives = memory.scratch(segment * lives());
    layout.result = layout.weight_gradient.shared ? memory.scratch(weight_bytes) : layout.weight_gradient;
    return finished(layout, memory);
  }

 private:
  static constexpr int float_bytes = 4;

  // What both directions need for a step.
  Layout step(Choice choice, Allocator& memory) const {
    Layout layout{};
    layout.blocks = blocks_;
    layout.cells = static_cast<int>(cells_);
    layout.cells_bits = cells_bits_;
    layout.tile_rows = choice.tile_rows;
    layout.input_stride = widths_.inputs + row_padding / number_;
    layout.activated_stride = widths_.hidden + row_padding / number_;
    layout.slope_stride = widths_.hidden + row_padding / float_bytes;
    const int rates = plan_.update == Update::leaky ? widths_.stride : 0;
    layout.head_stride = widths_.heads + rates + row_padding / float_bytes;
    layout.state = memory.shared(state_bytes());
    layout.flags = memory.shared(choice.tile_rows);
    layout.movement = memory.shared(block_warps * 2 * sizeof(double));
    if (widths_.hidden > 0) {
      layout.inputs = memory.shared(int64_t{choice.tile_rows} * layout.input_stride * number_);
      layout.activated = memory.shared(int64_t{choice.tile_rows} * layout.activated_stride * number_);
    }
    layout.heads = memory.shared(int64_t{choice.tile_rows} * layout.head_stride * float_bytes);
    if (choice.weights_shared) layout.weights = memory.shared(int64_t{weights_.size} * number_);
    return layout;
  }

  static Layout finished(Layout layout, const Allocator& memory) {
    layout.shared_bytes = memory.shared_bytes;
    layout.slice_bytes = memory.slice_bytes;
    return layout;
  }

  static int bits_for(int64_t count) {
    int bits = 0;
    while (int64_t{1} << bits < count) ++bits;
    return bits;
  }
  int64_t state_bytes() const { return cells_ * widths_.stride * number_; }
  int64_t lives() const { return plan_.alive_channel >= 0 ? cells_ : 0; }

  const Plan& plan_;
  Widths widths_;
  int number_;  // bytes of one as stored
  WeightLayout weights_;
  int blocks_, cells_bits_;
  int64_t cells_;  // of a block
};

// The first choice that fits and pleases; without one, the least.
template <class Make, class Pleases>
Layout first_choice(const Limits& limits, const Make& make, const Pleases& pleases) {
  for (const Choice& choice : choices) {
    const Layout layout = make(choice);
    const bool idle_rows = choice.tile_rows > round_up(layout.cells, fragment) && choice.tile_rows > 32;
    if (!idle_rows && layout.shared_bytes <= limits.shared_bytes && pleases(layout)) return layout;
  }
  return make(least_choice);
}

// make(planner, choice) is a layout; is_resident(layout) tells whether it keeps the cells in shared memory.
template <class Make, class IsResident>
Layout best(const Plan& plan, Storage storage, const Limits& limits, const Make& make, const IsResident& is_resident) {
  const auto anything = [](const Layout&) { return true; };
  for (int blocks = 1;; blocks *= 2) {
    const Planner planner(plan, storage, blocks);
    const auto made = [&](Choice choice) { return make(planner, choice); };
    if (blocks == 1 && (limits.blocks == 1 || made(least_choice).shared_bytes <= limits.shared_bytes)) {
      return first_choice(limits, made, anything);
    }
    const Layout layout = first_choice(limits, made, is_resident);
    if (layout.shared_bytes <= limits.shared_bytes && is_resident(layout)) return layout;
    if (blocks == limits.blocks) return first_choice(limits, made, anything);
  }
}

}  // namespace

Widths::Widths(const Plan& plan)
    : stride(static_cast<int>(round_up(plan.channels, packet))),
      own(plan.own_state ? stride : 0),
      percepts(percept_count(plan) * stride),
      drive(static_cast<int>(round_up(plan.drive, packet))),
      inputs(static_cast<int>(plan.hidden > 0 ? round_up(own + percepts + drive, fragment) : 0)),
      hidden(static_cast<int>(round_up(plan.hidden, fragment))),
      heads(static_cast<int>(round_up(head_count(plan) * stride, fragment))) {}

WeightLayout::WeightLayout(const Plan& plan, const Widths& widths, int number_bytes) {
  const int padding = row_padding / number_bytes;
  hidden_stride = widths.inputs + padding;
  head_stride = widths.hidden + padding;
  const bool layers = widths.hidden > 0;
  int end = 0;
  const auto add = [&](int count) {
    const int start = end;
    end += static_cast<int>(round_up(count, fragment));
    return start;
  };
  bank = add(plan.filters * plan.offset_count * widths.stride);
  hidden_weight = add(widths.hidden * hidden_stride);
  hidden_bias = add(widths.hidden);
  head_weight = add(layers ? widths.heads * head_stride : 0);
  head_bias = add(layers ? widths.heads : 0);
  rate = add(widths.stride);
  size = end;
}

int64_t least_shared_bytes(const Plan& plan, Storage storage, int blocks) {
  const Planner planner(plan, storage, blocks);
  return std::max(planner.forward(least_choice, 0).shared_bytes, planner.backward(least_choice, 1, 0).shared_bytes);
}

Layout forward_layout(const Plan& plan, Storage storage, const Limits& limits) {
  return best(
      plan, storage, limits,
      [&](const Planner& planner, Choice choice) { return planner.forward(choice, limits.shared_bytes); },
      [](const Layout& layout) { return layout.next.shared; });
}

Layout backward_layout(const Plan& plan, Storage storage, int64_t segment, const Limits& limits) {
  return best(
      plan, storage, limits,
      [&](const Planner& planner, Choice choice) { return planner.backward(choice, segment, limits.shared_bytes); },
      [](const Layout& layout) { return layout.gradient.shared && layout.other_gradient.shared; });
}

}  // namespace cube
