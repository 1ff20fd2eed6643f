// The Python module: plans from plain numbers, calls on tensors. It knows of those only where their numbers begin; the
// caller (cube_kernels/backends/native.py) has checked every shape, dtype and stride.
#include <stdexcept>
#include <string>
#include <vector>

#include "native/crew.h"
#include "native/targets.h"
#include "plan_binding.h"
#include "tensors.h"

namespace py = pybind11;

namespace cube {

// What is computed of perception alone.
CUBE_NAMED_ENUM(PerceptionResult, int, forward, adjoint, bank_gradient);

}  // namespace cube

namespace {

using Perceive = decltype(cube::Functions::perceive);

Perceive perception_function(const cube::Functions& functions, cube::PerceptionResult result) {
  switch (result) {
    case cube::PerceptionResult::forward: return functions.perceive;
    case cube::PerceptionResult::adjoint: return functions.perceive_adjoint;
    case cube::PerceptionResult::bank_gradient: return functions.bank_gradient;
  }
  __builtin_unreachable();
}

using cube::Target;
using cube::TensorAddress;
using cube::WeightAddresses;

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

// A plan and the calls on it.
class NativePlan : public cube::BoundPlan {
 public:
  using BoundPlan::BoundPlan;

  void forward(const std::string& isa, const cube::Schedule& schedule, TensorAddress state,
               const WeightAddresses& weights, TensorAddress drive, TensorAddress write_mask, TensorAddress result,
               TensorAddress trajectory, TensorAddress taken, TensorAddress checkpoints) const {
    const cube::Functions& functions = functions_for(isa, schedule.storage);
    py::gil_scoped_release unlocked;
    functions.forward(plan_, {schedule, cube::rule_weights(weights), state, drive, write_mask, result, checkpoints,
                              trajectory, taken});
  }

  void backward(const std::string& gradient_storage, const std::string& isa, const cube::Schedule& schedule,
                TensorAddress state, const WeightAddresses& weights, TensorAddress drive, TensorAddress write_mask,
                TensorAddress checkpoints, TensorAddress taken, TensorAddress result_gradient,
                TensorAddress trajectory_gradient, TensorAddress state_gradient,
                const WeightAddresses& weight_gradients, TensorAddress drive_gradient) const {
    const cube::Functions& functions = functions_for(isa, schedule.storage);
    py::gil_scoped_release unlocked;
    functions.backward(plan_, {schedule, cube::rule_weights(weights), state, drive, write_mask, checkpoints, taken,
                               result_gradient, trajectory_gradient, cube::named<cube::Storage>(gradient_storage),
                               state_gradient, drive_gradient, cube::rule_gradients(weight_gradients)});
  }

  void perception(const std::string& which, const std::string& isa, const std::string& storage, int64_t batch,
                  int threads, int64_t patience, TensorAddress bank, TensorAddress state, TensorAddress percepts,
                  TensorAddress result) const {
    const cube::PerceptionCall call{
        cube::named<cube::Storage>(storage), batch, threads, patience, bank, state, percepts, result};
    const cube::Functions& functions = functions_for(isa, call.storage);
    const Perceive function = perception_function(functions, cube::named<cube::PerceptionResult>(which));
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

 private:
  const cube::Functions& functions_for(const std::string& isa, cube::Storage storage) const {
    const bool wide = cube::storage_bytes(storage) == 8;
    const Target& target = target_for(isa, wide ? 8 : 4);
    return wide ? target.wide : target.single;
  }
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

  py::class_<cube::TensorReader>(m, "TensorReader")
      .def(py::init<std::vector<py::type>>())
      .def("look", [](const cube::TensorReader& reader, const py::tuple& tensors, const py::tuple& shapes) {
        return static_cast<int>(reader.look(tensors, shapes));
      });

  py::class_<cube::Schedule>(m, "Schedule")
      .def(py::init([](const std::string& storage, int64_t batch, bool shared_drive, bool shared_write_mask,
                       int64_t steps, int64_t checkpoint_every, uint64_t seed, int64_t trajectory_every,
                       double tolerance, int64_t first_step, int64_t first_sample, int threads, int64_t patience) {
        return cube::Schedule{cube::named<cube::Storage>(storage),
                              batch,
                              shared_drive,
                              shared_write_mask,
                              steps,
                              checkpoint_every,
                              seed,
                              trajectory_every,
                              tolerance,
                              first_step,
                              first_sample,
                              threads,
                              patience,
                              has_bf16_products()};
      }));

  cube::bind_plan<NativePlan>(m)
      .def("isa", [](const NativePlan& plan, const std::string& isa,
                     int item_size) { return plan.target_for(isa, item_size).name; })
      .def("forward", &NativePlan::forward)
      .def("backward", &NativePlan::backward)
      .def("perception", &NativePlan::perception);
}
