// The Python module: plans from plain numbers, calls on raw pointers. It knows nothing of torch; the caller
// (cube_kernels/backends/native.py) has checked every shape, dtype and stride before a pointer gets here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "native/crew.h"
#include "native/targets.h"
#include "plan_memory.h"

namespace py = pybind11;

namespace {

using cube::Target;

std::vector<const Target*> find_targets() {
  std::vector<const Target*> targets{&cube::portable_target};
#ifdef CUBE_X86_TARGETS
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    targets.push_back(&cube::avx2_target);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      targets.push_back(&cube::avx512_target);
    }
  }
#endif
  return targets;
}

const std::vector<const Target*>& supported_targets() {
  static const std::vector<const Target*> targets = find_targets();
  return targets;
}

bool has_bf16_products() {
#ifdef CUBE_X86_TARGETS
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has;
#else
  return false;
#endif
}

template <class E>
E named(const std::string& name, const std::vector<const char*>& names) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (name == names[i]) return static_cast<E>(i);
  }
  throw std::invalid_argument("cube_kernels._native: unknown name '" + name + "'");
}

// A plan and the calls on it.
class NativePlan {
 public:
  using Offsets = std::vector<std::array<int32_t, 3>>;

  NativePlan(const std::array<int32_t, 3>& shape, int32_t channels, const Offsets& offsets,
             std::array<std::vector<int32_t>, 3> axis_targets, int32_t filters)
      : memory_(shape, channels, offsets, std::move(axis_targets), filters) {}

  void set_rule(bool own_state, int32_t drive, int32_t inputs, int32_t hidden, const std::string& activation,
                const std::string& squash, const std::string& update, double step_size) {
    plan_.own_state = own_state;
    plan_.drive = drive;
    plan_.inputs = inputs;
    plan_.hidden = hidden;
    plan_.activation = named<cube::Activation>(activation, {"relu", "gelu", "silu", "tanh"});
    plan_.squash = named<cube::Squash>(squash, {"identity", "tanh"});
    plan_.update = named<cube::Update>(update, {"residual", "replace", "gated", "leaky"});
    plan_.step_size = step_size;
  }

  void set_fire(uint64_t threshold, double scale) {
    plan_.fire_threshold = threshold;
    plan_.fire_scale = scale;
  }

  void set_clamp(double low, double high) {
    plan_.clamps = true;
    plan_.low = low;
    plan_.high = high;
  }

  void set_retention(const std::array<std::vector<double>, 3>& axes) { memory_.set_retention(axes); }

  void set_immutable(const std::vector<int32_t>& channels) { memory_.set_immutable(channels); }

  void set_alive(int32_t channel, double threshold, bool before, bool after, double dead_value,
                 const Offsets& offsets) {
    plan_.alive_channel = channel;
    plan_.alive_threshold = threshold;
    plan_.alive_before = before;
    plan_.alive_after = after;
    plan_.dead_value = dead_value;
    memory_.set_pool(offsets);
  }

  using Weights = std::array<uintptr_t, 6>;

  void forward(const std::string& isa, const cube::Schedule& schedule, const Weights& weights, uintptr_t state,
               uintptr_t drive, uintptr_t write_mask, uintptr_t result, uintptr_t checkpoints, uintptr_t trajectory,
               uintptr_t taken) const {
    const cube::Functions& functions = functions_for(isa, schedule.storage);
    py::gil_scoped_release unlocked;
    functions.forward(plan_, {schedule, rule(weights), at(state), at(drive), at<uint8_t>(write_mask), at(result),
                              at(checkpoints), at(trajectory), at<int64_t>(taken)});
  }

  void backward(const std::string& isa, const cube::Schedule& schedule, const Weights& weights, uintptr_t state,
                uintptr_t drive, uintptr_t write_mask, uintptr_t checkpoints, uintptr_t taken,
                uintptr_t result_gradient, uintptr_t trajectory_gradient, uintptr_t state_gradient,
                uintptr_t drive_gradient, const Weights& gradients) const {
    const cube::Functions& functions = functions_for(isa, schedule.storage);
    py::gil_scoped_release unlocked;
    functions.backward(plan_, {schedule, rule(weights), at(state), at(drive), at<uint8_t>(write_mask), at(checkpoints),
                               at<int64_t>(taken), at(result_gradient), at(trajectory_gradient), at(state_gradient),
                               at(drive_gradient), rule_gradients(gradients)});
  }

  void perception(const std::string& which, const std::string& isa, const std::string& storage, int64_t batch,
                  int threads, int64_t patience, uintptr_t bank, uintptr_t state, uintptr_t percepts,
                  uintptr_t result) const {
    const cube::PerceptionCall call{storage_named(storage), batch,     threads, patience, at(bank), at(state),
                                    at(percepts),           at(result)};
    const cube::Functions& functions = functions_for(isa, call.storage);
    const auto function = which == "forward"   ? functions.perceive
                          : which == "adjoint" ? functions.perceive_adjoint
                                               : functions.bank_gradient;
    py::gil_scoped_release unlocked;
    function(plan_, call);
  }

  // "auto": the widest vectors among those that pad the channels least; portable ones only for want of others,
  // since they have no fused multiply-add.
  const Target& target_for(const std::string& isa, int item_size) const {
    const std::vector<const Target*>& targets = supported_targets();
    const Target* best = targets.front();
    int best_stride = 0;
    for (const Target* target : targets) {
      if (isa == target->name) return *target;
      const int lanes = target->vector_bytes / item_size;
      const int stride = (plan_.channels + lanes - 1) / lanes * lanes;
      if (best == &cube::portable_target || stride <= best_stride) {
        best = target;
        best_stride = stride;
      }
    }
    if (isa != "auto") throw std::invalid_argument("cube_kernels._native: this CPU or build has no '" + isa + "'");
    return *best;
  }

  static cube::Storage storage_named(const std::string& name) {
    return named<cube::Storage>(name, {"float64", "float32", "bfloat16", "float16"});
  }

 private:
  const cube::Functions& functions_for(const std::string& isa, cube::Storage storage) const {
    const bool wide = storage == cube::Storage::float64;
    const Target& target = target_for(isa, wide ? 8 : 4);
    return wide ? target.wide : target.single;
  }

  template <class T = void>
  static T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
  }
  static cube::RuleWeights rule(const Weights& p) {
    return {at(p[0]), at(p[1]), at(p[2]), at(p[3]), at(p[4]), at(p[5])};
  }
  static cube::RuleGradients rule_gradients(const Weights& p) {
    return {at(p[0]), at(p[1]), at(p[2]), at(p[3]), at(p[4]), at(p[5])};
  }

  cube::PlanMemory memory_;
  cube::Plan& plan_ = memory_.plan;
};

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Native CPU kernels of cube_kernels.";
  m.def("supported_isas", [] {
    std::vector<std::string> names;
    for (const Target* target : supported_targets()) names.push_back(target->name);
    return names;
  });
  m.attr("compiler") = CUBE_COMPILER;
  m.def("use_openmp", [](uintptr_t parallel) { cube::use_openmp(reinterpret_cast<cube::OpenMPParallel>(parallel)); });

  py::class_<cube::Schedule>(m, "Schedule")
      .def(py::init([](const std::string& storage, int64_t batch, bool shared_drive, bool shared_write_mask,
                       int64_t steps, int64_t checkpoint_every, uint64_t seed, int64_t trajectory_every,
                       double tolerance, int threads, int64_t patience) {
        return cube::Schedule{NativePlan::storage_named(storage),
                              batch,
                              shared_drive,
                              shared_write_mask,
                              steps,
                              checkpoint_every,
                              seed,
                              trajectory_every,
                              tolerance,
                              threads,
                              patience,
                              has_bf16_products()};
      }));

  py::class_<NativePlan>(m, "Plan")
      .def(py::init<const std::array<int32_t, 3>&, int32_t, const NativePlan::Offsets&,
                    std::array<std::vector<int32_t>, 3>, int32_t>(),
           py::kw_only(), py::arg("shape"), py::arg("channels"), py::arg("offsets"), py::arg("axis_targets"),
           py::arg("filters"))
      .def("set_rule", &NativePlan::set_rule, py::kw_only(), py::arg("own_state"), py::arg("drive"), py::arg("inputs"),
           py::arg("hidden"), py::arg("activation"), py::arg("squash"), py::arg("update"), py::arg("step_size"))
      .def("set_fire", &NativePlan::set_fire, py::kw_only(), py::arg("threshold"), py::arg("scale"))
      .def("set_clamp", &NativePlan::set_clamp)
      .def("set_retention", &NativePlan::set_retention)
      .def("set_immutable", &NativePlan::set_immutable)
      .def("set_alive", &NativePlan::set_alive, py::kw_only(), py::arg("channel"), py::arg("threshold"),
           py::arg("before"), py::arg("after"), py::arg("dead_value"), py::arg("offsets"))
      .def("isa", [](const NativePlan& plan, const std::string& isa,
                     int item_size) { return plan.target_for(isa, item_size).name; })
      .def("forward", &NativePlan::forward)
      .def("backward", &NativePlan::backward)
      .def("perception", &NativePlan::perception);
}
