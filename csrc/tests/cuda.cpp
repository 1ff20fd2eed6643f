// The CUDA kernels, emulated on the CPU, against the native ones: every array is a piece of memory of its own, so that
// sanitizers know its ends, and what nobody writes is NaN.
#include <cmath>
#include <cstdlib>
#include <string>

#include <cuda_runtime.h>

#include "../cuda/launch.h"
#include "../native/rollout.h"
#include "lattice.h"

namespace cube {
namespace {

// Numbers as a call takes them: at a multiple of 16 bytes, with nothing behind them.
class Array {
 public:
  Array(Storage storage, int64_t count) : storage_(storage), count_(count) {
    bytes_.assign(count * storage_bytes(storage), 0xff);
  }
  Array(Storage storage, int64_t count, Random& random, float scale) : Array(storage, count) {
    std::vector<float> numbers(count);
    for (float& number : numbers) number = static_cast<float>(random.uniform(-scale, scale));
    if (count > 0) encode<float>(storage, numbers.data(), count, data());
  }
  void* data() { return bytes_.empty() ? nullptr : bytes_.data(); }
  std::vector<float> numbers() const {
    std::vector<float> numbers(count_);
    if (count_ > 0) decode<float>(storage_, bytes_.data(), count_, numbers.data());
    return numbers;
  }

 private:
  Storage storage_;
  int64_t count_;
  std::vector<unsigned char> bytes_;
};

struct Options {
  const char* name;
  Shape shape = {3, 4, 6};
  int channels = 5;
  Boundary boundary = Boundary::walls;
  Perception perception = Perception::depthwise;
  int filters = 2;
  bool own_state = true;
  int drive = 0;
  bool shared_drive = false;
  int hidden = 19;
  Activation activation = Activation::gelu;
  Squash squash = Squash::tanh;
  Update update = Update::residual;
  double fire_rate = 1;
  bool clamps = false, masked = false;
  bool alive_before = false, alive_after = false;
  int64_t trajectory_every = 0;
  double tolerance = -1;
};

std::vector<Options> all_options() {
  std::vector<Options> all;
  const auto add = [&](const char* name, auto&& change) {
    all.push_back({name});
    change(all.back());
  };
  add("gated, with a drive for each sample", [](Options& o) {
    o.update = Update::gated;
    o.drive = 3;
  });
  add("leaky, replicate, with one drive for all", [](Options& o) {
    o.update = Update::leaky;
    o.boundary = Boundary::replicate;
    o.drive = 4;
    o.shared_drive = true;
    o.channels = 8;
  });
  add("gather, reflecting, half of the cells fire", [](Options& o) {
    o.perception = Perception::gather;
    o.filters = 0;
    o.boundary = Boundary::reflecting;
    o.update = Update::replace;
    o.fire_rate = 0.5;
    o.trajectory_every = 2;
  });
  add("cells live and die, some never change", [](Options& o) {
    o.alive_before = o.alive_after = true;
    o.masked = o.clamps = true;
    o.activation = Activation::silu;
  });
  add("a bare stencil that may stop", [](Options& o) {
    o.hidden = 0;
    o.filters = 1;
    o.own_state = false;
    o.squash = Squash::identity;
    o.tolerance = 0.2;
    o.boundary = Boundary::periodic;
  });
  return all;
}

// Sanitizers watch what threads do, whatever comes of it, and their time may grow with the square of the threads: two
// samples show what is not ordered, three steps a checkpoint and what is replayed.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool watched = true;
#else
constexpr bool watched = false;
#endif
constexpr int64_t batch = watched ? 2 : 4, steps = watched ? 3 : 5;

// All arrays of a rollout and its backward pass.
class Problem {
 public:
  Problem(const Options& o, Storage storage)
      : memory_(make_plan(o.shape, o.channels, von_neumann, o.boundary, o.perception, o.filters)),
        random_(7),
        options_(o),
        storage_(storage) {
    Plan& p = memory_->plan;
    p.own_state = o.own_state;
    p.drive = o.drive;
    p.inputs = ((o.own_state ? 1 : 0) + percept_count(p)) * o.channels + o.drive;
    p.hidden = o.hidden;
    p.activation = o.activation;
    p.squash = o.squash;
    p.update = o.update;
    p.step_size = 0.5;
    if (o.fire_rate < 1) p.fire_threshold = static_cast<uint64_t>(o.fire_rate * 0x1p32);
    p.clamps = o.clamps;
    p.low = -0.6;
    p.high = 0.7;
    if (o.alive_before || o.alive_after) {
      p.alive_channel = 1;
      p.alive_before = o.alive_before;
      p.alive_after = o.alive_after;
      p.alive_threshold = 0.1;
      p.dead_value = -0.2;
      memory_->set_pool(von_neumann);
    }
    if (o.masked) {
      memory_->set_immutable({o.channels - 1});
      for (int64_t i = 0; i < batch * p.cells; ++i) write_mask_.push_back(random_.below(4) != 0);
    }
  }

  // What each of both leaves behind, by name.
  using Results = std::vector<std::pair<std::string, std::vector<float>>>;

  template <class Forward, class Backward>
  Results run(const Forward& forward, const Backward& backward) {
    random_ = Random(8);  // the same numbers again
    const Plan& p = memory_->plan;
    const int64_t size = batch * p.cells * p.channels, heads = int64_t{head_count(p)} * p.channels;
    const int64_t kept = options_.trajectory_every > 0 ? steps / options_.trajectory_every : 0;
    const int64_t drive_size = (options_.shared_drive ? 1 : batch) * p.cells * p.drive;
    const int64_t sizes[] = {int64_t{p.filters} * p.offset_count * p.channels,
                             p.hidden * int64_t{p.inputs},
                             p.hidden,
                             heads * p.hidden,
                             p.hidden > 0 ? heads : 0,
                             p.update == Update::leaky ? p.channels : 0};
    std::vector<Array> weights, gradients;
    for (const int64_t count : sizes) {
      weights.emplace_back(storage_, count, random_, 0.5f);
      gradients.emplace_back(storage_, count);
    }
    Array state(storage_, size, random_, 1), drive(storage_, drive_size, random_, 1), result(storage_, size);
    Array checkpoints(storage_, checkpoint_count(steps, schedule().checkpoint_every) * size);
    Array trajectory(storage_, kept * size), result_gradient(storage_, size, random_, 1);
    Array trajectory_gradient(storage_, kept * size, random_, 1);
    Array state_gradient(storage_, size), drive_gradient(storage_, drive_size);
    std::vector<int64_t> taken(options_.tolerance >= 0 ? batch : 0, -1);
    const RuleWeights w{weights[0].data(), weights[1].data(), weights[2].data(),
                        weights[3].data(), weights[4].data(), weights[5].data()};
    const uint8_t* mask = write_mask_.empty() ? nullptr : write_mask_.data();
    int64_t* const took = taken.empty() ? nullptr : taken.data();
    forward(p, ForwardCall{schedule(), w, state.data(), drive.data(), mask, result.data(), checkpoints.data(),
                           trajectory.data(), took});
    backward(p, BackwardCall{schedule(),
                             w,
                             state.data(),
                             drive.data(),
                             mask,
                             checkpoints.data(),
                             took,
                             result_gradient.data(),
                             trajectory_gradient.data(),
                             storage_,
                             state_gradient.data(),
                             drive_gradient.data(),
                             {gradients[0].data(), gradients[1].data(), gradients[2].data(), gradients[3].data(),
                              gradients[4].data(), gradients[5].data()}});
    Results results{{"result", result.numbers()},
                    {"trajectory", trajectory.numbers()},
                    {"steps taken", {taken.begin(), taken.end()}},
                    {"gradient of the state", state_gradient.numbers()},
                    {"gradient of the drive", drive_gradient.numbers()}};
    const char* names[] = {"the filters", "hidden_weight", "hidden_bias", "head_weight", "head_bias", "the rate"};
    for (int i = 0; i < 6; ++i) results.emplace_back(std::string("gradient of ") + names[i], gradients[i].numbers());
    return results;
  }

  Schedule schedule() const {
    Schedule schedule{};
    schedule.storage = storage_;
    schedule.batch = batch;
    schedule.shared_drive = options_.shared_drive;
    schedule.steps = steps;
    schedule.checkpoint_every = 2;
    schedule.seed = 0x123456789abcdef;
    schedule.trajectory_every = options_.trajectory_every;
    schedule.tolerance = options_.tolerance;
    schedule.threads = 1;
    return schedule;
  }
  const Plan& plan() const { return memory_->plan; }

 private:
  std::unique_ptr<PlanMemory> memory_;
  Random random_;
  Options options_;
  Storage storage_;
  std::vector<uint8_t> write_mask_;
};

// Tables and scratch of an emulated call.
class Device {
 public:
  explicit Device(const Plan& plan) : memory_(plan), tables_(memory_.bytes()) {}
  Tables tables() const { return memory_.at(tables_.data()); }
  Execution execution(int64_t scratch_bytes, bool tf32 = false, cudaStream_t stream = nullptr) {
    scratch_.assign(scratch_bytes, 0xff);
    scratch_.shrink_to_fit();
    return {stream == nullptr ? 0 : stream->device, stream, tf32, scratch_.data()};
  }

 private:
  TableMemory memory_;
  std::vector<uint8_t> tables_, scratch_;
};

Problem::Results run_cuda(Problem& problem, bool tf32 = false, cudaStream_t stream = nullptr) {
  Device device(problem.plan());
  return problem.run(
      [&](const Plan& plan, const ForwardCall& call) {
        const int64_t bytes = forward_scratch_bytes(plan, call.schedule, limits(0));
        launch_forward(plan, device.tables(), call, device.execution(bytes, tf32, stream));
      },
      [&](const Plan& plan, const BackwardCall& call) {
        const int64_t bytes = backward_scratch_bytes(plan, call.schedule, limits(0));
        launch_backward(plan, device.tables(), call, device.execution(bytes, tf32, stream));
      });
}

void check_close(const Problem::Results& actual, const Problem::Results& truth, double tolerance, const char* name) {
  for (size_t i = 0; i < truth.size(); ++i) {
    const std::vector<float>&a = actual[i].second, &t = truth[i].second;
    double error = 0, size = 0;
    for (size_t j = 0; j < t.size(); ++j) {
      error += (double{a[j]} - t[j]) * (double{a[j]} - t[j]);
      size += double{t[j]} * t[j];
    }
    CHECK(std::sqrt(error) <= tolerance * std::sqrt(size), "%s, %s: off by %g of %g", name, truth[i].first.c_str(),
          std::sqrt(error), std::sqrt(size));
  }
}

const char* const forward_order = "0";
const char* const reverse_order = "1";
const char* const random_order = "2";

// With threads that run in each of these orders between barriers.
void check_rollouts(Storage storage, double tolerance, const std::vector<const char*>& orders) {
  for (const Options& options : all_options()) {
    Problem problem(options, storage);
    const auto truth = problem.run(rollout_forward<float>, rollout_backward<float>);
    for (const char* order : orders) {
      setenv("CUBE_EMULATED_ORDER", order, 1);
      check_close(run_cuda(problem), truth, tolerance, options.name);
    }
  }
}

TEST(float32_rollouts_equal_native_ones) {
  check_rollouts(Storage::float32, 1e-5, {forward_order, reverse_order, random_order});
}
TEST(bfloat16_rollouts_equal_native_ones) { check_rollouts(Storage::bfloat16, 2e-2, {reverse_order}); }
TEST(float16_rollouts_equal_native_ones) { check_rollouts(Storage::float16, 4e-3, {random_order}); }

TEST(tf32_rollouts_are_near_native_ones) {
  Problem problem(all_options().front(), Storage::float32);
  check_close(run_cuda(problem, true), problem.run(rollout_forward<float>, rollout_backward<float>), 2e-2, "tf32");
}

// A device on which a block has so much shared memory, for as long as this lives.
class SharedMemory {
 public:
  explicit SharedMemory(int64_t bytes) { setenv("CUBE_EMULATED_SHARED_BYTES", std::to_string(bytes).c_str(), 1); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory() { unsetenv("CUBE_EMULATED_SHARED_BYTES"); }
};

// Sanitizers take what has every barrier of a cluster.
bool is_taken(const Options& options, int blocks) {
  return !watched || (blocks == 4 && (options.alive_after || options.tolerance >= 0));
}

// With the least shared memory that clusters of eight need, some of which have no cells, or with so much that four keep
// all states and gradients there.
void check_clusters(Storage storage, int blocks, const char* order, double tolerance) {
  setenv("CUBE_EMULATED_ORDER", order, 1);
  const Shape uneven = {5, 6, 9}, even = {4, 8, 8};
  for (Options options : all_options()) {
    if (!is_taken(options, blocks)) continue;
    options.hidden = std::min(options.hidden, 13);
    options.shape = blocks == 8 ? uneven : even;
    Problem problem(options, storage);
    const Plan& plan = problem.plan();
    const int64_t enough = forward_layout(plan, storage, {0, 1}).shared_bytes;
    const SharedMemory memory(blocks == 8 ? least_shared_bytes(plan, storage, 8) : enough - 1);
    const int forth = forward_layout(plan, storage, limits(0)).blocks;
    const int back = backward_layout(plan, storage, 2, limits(0)).blocks;
    CHECK(forth > 1 && back == blocks, "%s: %d and %d blocks", options.name, forth, back);
    check_close(run_cuda(problem), problem.run(rollout_forward<float>, rollout_backward<float>), tolerance,
                options.name);
  }
}

TEST(clusters_of_eight_equal_native_rollouts) { check_clusters(Storage::float32, 8, reverse_order, 1e-5); }
TEST(clusters_of_four_equal_native_rollouts) { check_clusters(Storage::float32, 4, forward_order, 1e-5); }
TEST(clusters_equal_native_rollouts_in_half_width) { check_clusters(Storage::bfloat16, 8, random_order, 2e-2); }

// A stream of another device than the current one refuses launches.
TEST(a_call_runs_on_the_device_of_its_stream_and_leaves_the_current_one) {
  setenv("CUBE_EMULATED_DEVICES", "2", 1);
  EmulatedStream of_another{1};
  Problem problem(all_options().front(), Storage::float32);
  const auto here = run_cuda(problem), there = run_cuda(problem, false, &of_another);
  check_close(there, here, 0, "on the other device");
  int current = -1;
  cudaGetDevice(&current);
  CHECK(current == 0, "the current device is %d", current);
  unsetenv("CUBE_EMULATED_DEVICES");
}

void check_perception(int channels, int filters) {
  const auto memory = make_plan({2, 3, 4}, channels, von_neumann, Boundary::replicate, Perception::depthwise, filters);
  const Plan& plan = memory->plan;
  Random random(9);
  const int64_t offsets = plan.offset_count, row = channels, count = batch * plan.cells;
  Array bank(Storage::float32, filters * offsets * row, random, 1), state(Storage::float32, count * row, random, 1);
  Array cotangent(Storage::float32, count * filters * row, random, 1),
      percepts(Storage::float32, count * filters * row);
  Array adjoint(Storage::float32, count * row), bank_gradient(Storage::float32, filters * offsets * row);
  std::vector<float> p(count * filters * row), a(count * row), g(filters * offsets * row);
  const auto w = bank.numbers(), x = state.numbers(), d = cotangent.numbers();
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t o = 0; o < offsets; ++o) {
      const int64_t near =
          i / plan.cells * plan.cells + neighbor({2, 3, 4}, Boundary::replicate, i % plan.cells, von_neumann[o]);
      for (int64_t f = 0; f < filters; ++f) {
        for (int64_t c = 0; c < row; ++c) {
          p[(i * filters + f) * row + c] += w[(f * offsets + o) * row + c] * x[near * row + c];
          a[near * row + c] += w[(f * offsets + o) * row + c] * d[(i * filters + f) * row + c];
          g[(f * offsets + o) * row + c] += x[near * row + c] * d[(i * filters + f) * row + c];
        }
      }
    }
  }
  Device device(plan);
  PerceptionCall call{};
  call.storage = Storage::float32;
  call.batch = batch;
  call.bank = bank.data();
  call.state = state.data();
  call.percepts = cotangent.data();
  call.result = percepts.data();
  launch_perceive(plan, device.tables(), call, device.execution(0));
  call.result = adjoint.data();
  launch_perceive_adjoint(plan, device.tables(), call, device.execution(0));
  call.result = bank_gradient.data();
  launch_bank_gradient(plan, device.tables(), call, device.execution(bank_gradient_scratch_bytes(plan, batch)));
  check_close({{"percepts", percepts.numbers()}, {"adjoint", adjoint.numbers()}, {"filters", bank_gradient.numbers()}},
              {{"percepts", p}, {"adjoint", a}, {"filters", g}}, 1e-5, "perception");
}

TEST(perception_alone_equals_its_definition) {
  for (const int channels : {4, 5}) {
    for (const int filters : {3, 0}) check_perception(channels, filters);
  }
}

}  // namespace
}  // namespace cube
