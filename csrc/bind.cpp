// The Python module: plans from plain numbers, calls on raw pointers. It knows nothing of torch; the caller
// (cube_kernels/backends/native.py) has checked every shape, dtype and stride before a pointer gets here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <vector>

#include "native/targets.h"
#include "plan.h"

namespace py = pybind11;

namespace {

using cube::Target;

std::vector<const Target*> supported_targets() {
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

template <class E>
E named(const std::string& name, const std::vector<const char*>& names) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (name == names[i]) return static_cast<E>(i);
  }
  throw std::invalid_argument("cube_kernels._native: unknown name '" + name + "'");
}

// A Plan and the memory it points to.
class NativePlan {
 public:
  NativePlan(const std::array<int32_t, 3>& shape, int32_t channels, const std::vector<std::array<int32_t, 3>>& offsets,
             std::array<std::vector<int32_t>, 3> axis_targets, int32_t filters, bool own_state, int32_t drive,
             int32_t inputs, int32_t hidden, const std::string& activation, const std::string& squash,
             const std::string& update, double step_size)
      : targets_(std::move(axis_targets)) {
    for (const auto& offset : offsets) offsets_.push_back({{offset[0], offset[1], offset[2]}});
    for (int a = 0; a < 3; ++a) {
      const int32_t size = shape[a], shifts = static_cast<int32_t>(targets_[a].size()) / size;
      for (int32_t s = 0; s < shifts; ++s) {
        for (int32_t j = 0; j < size; ++j) {
          source_starts_[a].push_back(static_cast<int32_t>(sources_[a].size()));
          for (int32_t i = 0; i < size; ++i) {
            if (targets_[a][s * size + i] == j) sources_[a].push_back(i);
          }
        }
      }
      source_starts_[a].push_back(static_cast<int32_t>(sources_[a].size()));
      plan_.axis[a] = {size, (shifts - 1) / 2, targets_[a].data(), source_starts_[a].data(), sources_[a].data()};
    }
    plan_.cells = int64_t{shape[0]} * shape[1] * shape[2];
    plan_.channels = channels;
    plan_.offset_count = static_cast<int32_t>(offsets_.size());
    plan_.offsets = offsets_.data();
    plan_.filters = filters;
    plan_.own_state = own_state;
    plan_.drive = drive;
    plan_.inputs = inputs;
    plan_.hidden = hidden;
    plan_.activation = named<cube::Activation>(activation, {"relu", "gelu", "silu", "tanh"});
    plan_.squash = named<cube::Squash>(squash, {"identity", "tanh"});
    plan_.update = named<cube::Update>(update, {"residual", "replace", "gated"});
    plan_.step_size = step_size;
  }
  NativePlan(const NativePlan&) = delete;

  void forward(const std::string& isa, int item_size, const cube::Schedule& schedule,
               const std::array<uintptr_t, 5>& weights, uintptr_t state, uintptr_t drive, uintptr_t result,
               uintptr_t checkpoints) const {
    const Target& target = target_for(isa, item_size);
    py::gil_scoped_release unlocked;
    if (item_size == 4) {
      target.forward32(plan_, {schedule, rule<float>(weights), at<const float>(state), at<const float>(drive),
                               at<float>(result), at<float>(checkpoints)});
    } else {
      target.forward64(plan_, {schedule, rule<double>(weights), at<const double>(state), at<const double>(drive),
                               at<double>(result), at<double>(checkpoints)});
    }
  }

  void backward(const std::string& isa, int item_size, const cube::Schedule& schedule,
                const std::array<uintptr_t, 5>& weights, uintptr_t state, uintptr_t drive, uintptr_t checkpoints,
                uintptr_t result_gradient, uintptr_t state_gradient, uintptr_t drive_gradient,
                const std::array<uintptr_t, 5>& gradients) const {
    const Target& target = target_for(isa, item_size);
    py::gil_scoped_release unlocked;
    if (item_size == 4) {
      target.backward32(plan_,
                        {schedule, rule<float>(weights), at<const float>(state), at<const float>(drive),
                         at<const float>(checkpoints), at<const float>(result_gradient), at<float>(state_gradient),
                         at<float>(drive_gradient), rule_gradients<float>(gradients)});
    } else {
      target.backward64(plan_,
                        {schedule, rule<double>(weights), at<const double>(state), at<const double>(drive),
                         at<const double>(checkpoints), at<const double>(result_gradient), at<double>(state_gradient),
                         at<double>(drive_gradient), rule_gradients<double>(gradients)});
    }
  }

  // "auto": the widest vectors among those that pad the channels least; portable ones only for want of others,
  // since they have no fused multiply-add.
  const Target& target_for(const std::string& isa, int item_size) const {
    const std::vector<const Target*> targets = supported_targets();
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

 private:
  template <class T>
  static T* at(uintptr_t address) {
    return reinterpret_cast<T*>(address);
  }
  template <class T>
  static cube::RuleWeights<T> rule(const std::array<uintptr_t, 5>& p) {
    return {at<const T>(p[0]), at<const T>(p[1]), at<const T>(p[2]), at<const T>(p[3]), at<const T>(p[4])};
  }
  template <class T>
  static cube::RuleGradients<T> rule_gradients(const std::array<uintptr_t, 5>& p) {
    return {at<T>(p[0]), at<T>(p[1]), at<T>(p[2]), at<T>(p[3]), at<T>(p[4])};
  }

  cube::Plan plan_{};
  std::vector<cube::Offset> offsets_;
  std::array<std::vector<int32_t>, 3> targets_, source_starts_, sources_;
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

  py::class_<cube::Schedule>(m, "Schedule")
      .def(py::init([](int64_t batch, bool shared_drive, int64_t steps, int64_t checkpoint_every, int threads) {
        return cube::Schedule{batch, shared_drive, steps, checkpoint_every, threads};
      }));

  py::class_<NativePlan>(m, "Plan")
      .def(py::init<const std::array<int32_t, 3>&, int32_t, const std::vector<std::array<int32_t, 3>>&,
                    std::array<std::vector<int32_t>, 3>, int32_t, bool, int32_t, int32_t, int32_t, const std::string&,
                    const std::string&, const std::string&, double>(),
           py::kw_only(), py::arg("shape"), py::arg("channels"), py::arg("offsets"), py::arg("axis_targets"),
           py::arg("filters"), py::arg("own_state"), py::arg("drive"), py::arg("inputs"), py::arg("hidden"),
           py::arg("activation"), py::arg("squash"), py::arg("update"), py::arg("step_size"))
      .def("isa", [](const NativePlan& plan, const std::string& isa,
                     int item_size) { return plan.target_for(isa, item_size).name; })
      .def("forward", &NativePlan::forward)
      .def("backward", &NativePlan::backward);
}
