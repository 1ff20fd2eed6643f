// Whole rollouts: gradients against finite differences, and results that depend on nothing but the problem.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <thread>

#include "../native/rollout.h"
#include "lattice.h"

namespace cube {
namespace {

using Numbers = std::vector<double>;

// What a call leaves behind.
struct Results {
  Numbers result, trajectory;
  std::vector<int64_t> taken;
  std::vector<Numbers> gradients;  // of the inputs, in their order

  bool operator==(const Results& other) const {
    return result == other.result && trajectory == other.trajectory && taken == other.taken &&
           gradients == other.gradients;
  }
};

enum class PerSample { none, each, shared };

struct Options {
  Shape shape = {3, 4, 5};
  int channels = 3;
  Offsets offsets = von_neumann;
  Boundary boundary = Boundary::walls;
  Perception perception = Perception::depthwise;
  int filters = 2;
  bool own_state = true;
  PerSample drive = PerSample::none, write_mask = PerSample::none;
  int hidden = 7;
  Activation activation = Activation::gelu;
  Squash squash = Squash::tanh;
  Update update = Update::residual;
  double fire_rate = 1;
  bool clamps = false, fades = false, immutable = false;
  bool alive_before = false, alive_after = false;
  int batch = 2;
  int64_t steps = 3, trajectory_every = 0;
  double tolerance = -1;
  int64_t first_step = 0, first_sample = 0;
};

// A rule on a lattice with random inputs and random gradients of what it returns.
class Problem {
 public:
  enum Input { state, drive, bank, hidden_weight, hidden_bias, head_weight, head_bias, rate, input_count };

  Problem(const Options& o, uint64_t seed)
      : memory_(make_plan(o.shape, o.channels, o.offsets, o.boundary, o.perception, o.filters)),
        plan_(memory_->plan),
        inputs(input_count),
        options_(o) {
    Random random(seed);
    const int drive_channels = o.drive == PerSample::none ? 0 : 3;
    plan_.own_state = o.own_state;
    plan_.drive = drive_channels;
    plan_.inputs = ((o.own_state ? 1 : 0) + percept_count(plan_)) * o.channels + drive_channels;
    plan_.hidden = o.hidden;
    plan_.activation = o.activation;
    plan_.squash = o.squash;
    plan_.update = o.update;
    plan_.step_size = 0.5;
    if (o.fire_rate < 1) plan_.fire_threshold = static_cast<uint64_t>(o.fire_rate * 0x1p32);
    plan_.clamps = o.clamps;
    plan_.low = -0.6;
    plan_.high = 0.7;
    if (o.fades) {
      std::array<Numbers, 3> axes;
      for (int a = 0; a < 3; ++a) {
        for (int32_t i = 0; i < o.shape[a]; ++i) axes[a].push_back(random.uniform(0.7, 1));
      }
      memory_->set_retention(axes);
    }
    if (o.immutable) memory_->set_immutable({o.channels - 1});
    if (o.alive_before || o.alive_after) {
      plan_.alive_channel = o.channels / 2;
      plan_.alive_before = o.alive_before;
      plan_.alive_after = o.alive_after;
      plan_.alive_threshold = 0.4;
      plan_.dead_value = -0.2;
      memory_->set_pool(o.offsets);
    }
    if (o.write_mask != PerSample::none) {
      write_mask_.resize(samples(o.write_mask) * plan_.cells);
      for (uint8_t& may_change : write_mask_) may_change = random.below(4) != 0;
    }

    const int64_t heads = int64_t{head_count(plan_)} * o.channels, weight_columns = plan_.inputs;
    draw(random, state, state_size(), 1);
    draw(random, drive, drive_channels == 0 ? 0 : samples(o.drive) * plan_.cells * drive_channels, 1);
    draw(random, bank, int64_t{o.filters} * plan_.offset_count * o.channels, 1);
    draw(random, hidden_weight, o.hidden * weight_columns, 1.5 / std::sqrt(weight_columns));
    draw(random, hidden_bias, o.hidden, 0.5);
    draw(random, head_weight, heads * o.hidden, 1.5 / std::sqrt(o.hidden));
    draw(random, head_bias, o.hidden > 0 ? heads : 0, 0.5);
    draw(random, rate, o.update == Update::leaky ? o.channels : 0, 0.4);
    for (double& r : inputs[rate]) r += 0.5;  // positive
    result_gradient_ = random_numbers(random, state_size(), 1);
    trajectory_gradient_ = random_numbers(random, kept() * state_size(), 1);
  }

  Results forward(int threads, int64_t every, Numbers* checkpoints) const {
    Results results{empty(state_size()), empty(kept() * state_size()), {}, {}};
    if (options_.tolerance >= 0) results.taken.assign(options_.batch, -1);
    *checkpoints = empty(checkpoint_count(options_.steps, every) * state_size());
    rollout_forward<double>(plan_, {schedule(threads, every), weights(), inputs[state].data(), inputs[drive].data(),
                                    write_mask(), results.result.data(), checkpoints->data(), results.trajectory.data(),
                                    results.taken.empty() ? nullptr : results.taken.data()});
    return results;
  }

  Results run(int threads, int64_t every) const {
    Numbers checkpoints;
    Results results = forward(threads, every, &checkpoints);
    for (const Numbers& input : inputs) results.gradients.push_back(empty(static_cast<int64_t>(input.size())));
    std::vector<Numbers>& g = results.gradients;
    rollout_backward<double>(plan_,
                             {schedule(threads, every),
                              weights(),
                              inputs[state].data(),
                              inputs[drive].data(),
                              write_mask(),
                              checkpoints.data(),
                              results.taken.empty() ? nullptr : results.taken.data(),
                              result_gradient_.data(),
                              trajectory_gradient_.empty() ? nullptr : trajectory_gradient_.data(),
                              Storage::float64,
                              g[state].data(),
                              g[drive].data(),
                              {g[bank].data(), g[hidden_weight].data(), g[hidden_bias].data(), g[head_weight].data(),
                               g[head_bias].data(), g[rate].empty() ? nullptr : g[rate].data()}});
    return results;
  }

  // What the gradients are of.
  double objective(const Results& results) const {
    return dot(result_gradient_, results.result) + dot(trajectory_gradient_, results.trajectory);
  }

  static double dot(const Numbers& a, const Numbers& b) {
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  }
  static Numbers random_numbers(Random& random, int64_t count, double scale) {
    Numbers numbers(count);
    for (double& number : numbers) number = random.uniform(-scale, scale);
    return numbers;
  }

 private:
  std::unique_ptr<PlanMemory> memory_;
  Plan& plan_;

 public:
  std::vector<Numbers> inputs;

 private:
  // A number that nobody writes shows.
  static Numbers empty(int64_t count) { return Numbers(count, std::numeric_limits<double>::quiet_NaN()); }
  void draw(Random& random, Input input, int64_t count, double scale) {
    inputs[input] = random_numbers(random, count, scale);
  }
  int64_t samples(PerSample which) const { return which == PerSample::shared ? 1 : options_.batch; }
  int64_t state_size() const { return options_.batch * plan_.cells * plan_.channels; }
  int64_t kept() const { return options_.trajectory_every > 0 ? options_.steps / options_.trajectory_every : 0; }
  const uint8_t* write_mask() const { return write_mask_.empty() ? nullptr : write_mask_.data(); }
  Schedule schedule(int threads, int64_t every) const {
    return {Storage::float64,
            options_.batch,
            options_.drive == PerSample::shared,
            options_.write_mask == PerSample::shared,
            options_.steps,
            every,
            0x123456789abcdef,
            options_.trajectory_every,
            options_.tolerance,
            options_.first_step,
            options_.first_sample,
            threads,
            1000000,
            false};
  }
  RuleWeights weights() const {
    return {inputs[bank].data(),        inputs[hidden_weight].data(),
            inputs[hidden_bias].data(), inputs[head_weight].data(),
            inputs[head_bias].data(),   inputs[rate].empty() ? nullptr : inputs[rate].data()};
  }

  Options options_;
  std::vector<uint8_t> write_mask_;
  Numbers result_gradient_, trajectory_gradient_;
};

PerSample draw_per_sample(Random& random) { return static_cast<PerSample>(random.below(3)); }

// Tiny problems; `trial` goes through all pairs of an update and a squash, the rest is drawn.
Options tiny(int trial, Random& random) {
  Options o;
  o.shape = {1 + random.below(2), 1 + random.below(3), 2 + random.below(3)};
  o.channels = 1 + random.below(5);
  o.offsets = random_offsets(random, 2 + random.below(4), 1 + random.below(2));
  o.boundary = boundaries[random.below(4)];
  o.filters = random.below(5);
  o.own_state = random.below(3) != 0;
  o.drive = draw_per_sample(random);
  o.write_mask = draw_per_sample(random);
  o.hidden = random.below(10);
  o.update = static_cast<Update>(trial % 4);
  if (o.hidden == 0) {
    o.filters = o.update == Update::gated ? 2 : 1;
    o.own_state = false;
    o.drive = PerSample::none;
  }
  if (o.filters == 0) o.perception = Perception::gather;
  o.squash = static_cast<Squash>(trial / 4 % 2);
  o.activation = static_cast<Activation>(random.below(4));
  o.fire_rate = random.below(2) != 0 ? 1 : 0.5;
  o.clamps = random.below(3) == 0;
  o.fades = random.below(3) == 0;
  o.immutable = random.below(3) == 0;
  const int life = random.below(6);
  o.alive_before = life == 1 || life == 2;
  o.alive_after = life == 2 || life == 3;
  o.batch = 1 + random.below(3);
  o.steps = 1 + random.below(4);
  o.trajectory_every = random.below(3);
  o.tolerance = random.below(3) == 0 ? 0.3 : -1;
  return o;
}

TEST(gradients_equal_finite_differences) {
  Random random(5);
  const double h = 1e-6;
  for (int trial = 0; trial < 160; ++trial) {
    Problem problem(tiny(trial, random), random.bits());
    const Results results = problem.run(1, 2);
    for (int input = 0; input < Problem::input_count; ++input) {
      Numbers& values = problem.inputs[input];
      if (values.empty()) continue;
      const Numbers start = values;
      const Numbers direction = Problem::random_numbers(random, static_cast<int64_t>(values.size()), 1);
      const auto moved = [&](double by) {
        for (size_t i = 0; i < values.size(); ++i) values[i] = start[i] + by * direction[i];
        Numbers checkpoints;
        const Results there = problem.forward(1, 2, &checkpoints);
        CHECK(there.taken == results.taken, "trial %d: a sample stops elsewhere; take another seed", trial);
        return problem.objective(there);
      };
      const double difference = (moved(h) - moved(-h)) / (2 * h);
      values = start;
      const double gradient = Problem::dot(results.gradients[input], direction);
      CHECK(std::fabs(gradient - difference) <= 1e-6 * (1 + std::fabs(difference)),
            "trial %d, input %d: gradient %.9g, difference %.9g", trial, input, gradient, difference);
    }
  }
}

// Several blocks of cells, and work enough to wake every thread that is asked for.
Options large(int batch) {
  Options o;
  o.shape = {5, 5, 7};
  o.channels = 5;
  o.filters = 3;
  o.drive = PerSample::shared;
  o.write_mask = PerSample::each;
  o.hidden = 33;
  o.update = Update::gated;
  o.boundary = Boundary::replicate;
  o.fire_rate = 0.5;
  o.alive_before = o.alive_after = true;
  o.batch = batch;
  o.steps = batch > 8 ? 2 : 5;
  o.trajectory_every = 2;
  o.tolerance = 0.01;
  return o;
}

TEST(results_do_not_depend_on_the_number_of_threads) {
  for (const int batch : {1, 2, 5, 40}) {
    const Problem problem(large(batch), 6);
    const Results first = problem.run(1, 2);
    for (const int threads : {2, 3, 8}) CHECK(problem.run(threads, 2) == first, "batch %d, %d threads", batch, threads);
  }
}

TEST(results_do_not_depend_on_the_checkpoints) {
  Random random(7);
  for (int trial = 0; trial < 40; ++trial) {
    Options o = tiny(trial, random);
    o.steps = 5;
    const Problem problem(o, random.bits());
    const Results first = problem.run(1, 1);
    for (int64_t every = 2; every <= 6; ++every) {
      CHECK(problem.run(1, every) == first, "trial %d, every %d steps", trial, static_cast<int>(every));
    }
  }
  const Problem problem(large(2), 8);
  const Results first = problem.run(1, 1);
  for (int64_t every = 2; every <= 5; ++every) {
    CHECK(problem.run(3, every) == first, "3 threads, every %d steps", static_cast<int>(every));
  }
}

TEST(results_do_not_depend_on_other_calls) {
  const Problem problem(large(2), 9);
  const Results expected = problem.run(1, 2);
  std::vector<int> equal(4);
  std::vector<std::thread> callers;
  for (int& count : equal) {
    callers.emplace_back([&problem, &expected, &count] {
      for (int i = 0; i < 5; ++i) count += problem.run(3, 2) == expected;
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const int count : equal) CHECK(count == 5, "%d of 5 agree", count);
}

#ifndef __SANITIZE_THREAD__
// ThreadSanitizer supports no new threads in the forked child of a process with several.
TEST(a_forked_child_starts_threads_of_its_own) {
  const Problem problem(large(2), 10);
  const Results expected = problem.run(3, 2);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // in place of waiting forever for the parent's threads
    _exit(problem.run(3, 2) == expected ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
  CHECK(problem.run(3, 2) == expected, "the parent afterwards");
}
#endif

}  // namespace
}  // namespace cube
