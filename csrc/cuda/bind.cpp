// The Python module of the CUDA kernels. Like the native one it knows nothing of torch; its caller
// (cube_kernels/backends/cuda.py) has checked every shape, dtype, stride and alignment.
#include <memory>
#include <string>

#include "../plan_binding.h"
#include "launch.h"
#include "layout.h"

namespace py = pybind11;

namespace {

using cube::TensorAddress;
using cube::WeightAddresses;

// A plan, its tables and the calls on it. `tables` is where a copy of them lies on the device.
class CudaPlan : public cube::BoundPlan {
 public:
  using BoundPlan::BoundPlan;

  // To be asked for once the rule's switches are set.
  py::bytes tables() {
    tables_ = std::make_unique<cube::TableMemory>(plan_);
    const std::vector<uint8_t>& bytes = tables_->bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  int64_t least_shared_bytes(const std::string& storage, int blocks) const {
    return cube::least_shared_bytes(plan_, cube::named<cube::Storage>(storage), blocks);
  }
  int64_t forward_scratch_bytes(const cube::Schedule& schedule, const cube::Limits& limits) const {
    return cube::forward_scratch_bytes(plan_, schedule, limits);
  }
  int64_t backward_scratch_bytes(const cube::Schedule& schedule, const cube::Limits& limits) const {
    return cube::backward_scratch_bytes(plan_, schedule, limits);
  }
  int64_t bank_gradient_scratch_bytes(int64_t batch) const { return cube::bank_gradient_scratch_bytes(plan_, batch); }

  void forward(const cube::Execution& execution, TensorAddress tables, const cube::Schedule& schedule,
               TensorAddress state, const WeightAddresses& weights, TensorAddress drive, TensorAddress write_mask,
               TensorAddress result, TensorAddress trajectory, TensorAddress taken, TensorAddress checkpoints) const {
    cube::launch_forward(
        plan_, tables_->at(tables),
        {schedule, cube::rule_weights(weights), state, drive, write_mask, result, checkpoints, trajectory, taken},
        execution);
  }

  void backward(const cube::Execution& execution, TensorAddress tables, const cube::Schedule& schedule,
                TensorAddress state, const WeightAddresses& weights, TensorAddress drive, TensorAddress write_mask,
                TensorAddress checkpoints, TensorAddress taken, TensorAddress result_gradient,
                TensorAddress trajectory_gradient, TensorAddress state_gradient,
                const WeightAddresses& weight_gradients, TensorAddress drive_gradient) const {
    cube::launch_backward(
        plan_, tables_->at(tables),
        {schedule, cube::rule_weights(weights), state, drive, write_mask, checkpoints, taken, result_gradient,
         trajectory_gradient, schedule.storage, state_gradient, drive_gradient, cube::rule_gradients(weight_gradients)},
        execution);
  }

  template <auto launch>
  void perception(const cube::Execution& execution, TensorAddress tables, const std::string& storage, int64_t batch,
                  TensorAddress bank, TensorAddress state, TensorAddress percepts, TensorAddress result) const {
    cube::PerceptionCall call{};
    call.storage = cube::named<cube::Storage>(storage);
    call.batch = batch;
    call.bank = bank;
    call.state = state;
    call.percepts = percepts;
    call.result = result;
    launch(plan_, tables_->at(tables), call, execution);
  }

 private:
  std::unique_ptr<cube::TableMemory> tables_;
};

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of cube_kernels.";
  m.attr("build") = CUBE_BUILD;
  m.def("device_problem", &cube::device_problem);
  m.def("device_report", &cube::device_report);
  m.def("limits", &cube::limits);

  py::class_<cube::Limits>(m, "Limits", py::module_local())
      .def_readonly("shared_bytes", &cube::Limits::shared_bytes)
      .def_readonly("blocks", &cube::Limits::blocks);

  py::class_<cube::Execution>(m, "Execution", py::module_local())
      .def(py::init([](int device, uintptr_t stream, bool tf32, TensorAddress scratch) {
        return cube::Execution{device, reinterpret_cast<void*>(stream), tf32, scratch};
      }));

  py::class_<cube::Schedule>(m, "Schedule", py::module_local())
      .def(py::init([](const std::string& storage, int64_t batch, bool shared_drive, bool shared_write_mask,
                       int64_t steps, int64_t checkpoint_every, uint64_t seed, int64_t trajectory_every,
                       double tolerance, int64_t first_step, int64_t first_sample) {
        cube::Schedule schedule{};
        schedule.storage = cube::named<cube::Storage>(storage);
        schedule.batch = batch;
        schedule.shared_drive = shared_drive;
        schedule.shared_write_mask = shared_write_mask;
        schedule.steps = steps;
        schedule.checkpoint_every = checkpoint_every;
        schedule.seed = seed;
        schedule.trajectory_every = trajectory_every;
        schedule.tolerance = tolerance;
        schedule.first_step = first_step;
        schedule.first_sample = first_sample;
        return schedule;
      }));

  cube::bind_plan<CudaPlan>(m)
      .def("tables", &CudaPlan::tables)
      .def("least_shared_bytes", &CudaPlan::least_shared_bytes)
      .def("forward_scratch_bytes", &CudaPlan::forward_scratch_bytes)
      .def("backward_scratch_bytes", &CudaPlan::backward_scratch_bytes)
      .def("bank_gradient_scratch_bytes", &CudaPlan::bank_gradient_scratch_bytes)
      .def("forward", &CudaPlan::forward)
      .def("backward", &CudaPlan::backward)
      .def("perceive", &CudaPlan::perception<cube::launch_perceive>)
      .def("perceive_adjoint", &CudaPlan::perception<cube::launch_perceive_adjoint>)
      .def("bank_gradient", &CudaPlan::perception<cube::launch_bank_gradient>);
}
