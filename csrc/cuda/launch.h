// What the binding calls. Pointers are the device's; nothing here waits, allocates or copies, so that every call may be
// captured in a CUDA graph.
#pragma once
#include <string>

#include "../plan.h"
#include "layout.h"
#include "tables.h"

namespace cube {

// Where and how a call runs.
struct Execution {
  int device;
  void* stream;
  bool tf32;      // products of float32 may be rounded to TF32
  void* scratch;  // as many bytes as the functions below say, at a multiple of 16
};

// Why the device cannot run these kernels; "" if it can.
std::string device_problem(int device);
// The driver and every device, for people to read.
std::string device_report();
Limits limits(int device);

int64_t forward_scratch_bytes(const Plan& plan, const Schedule& schedule, const Limits& limits);
int64_t backward_scratch_bytes(const Plan& plan, const Schedule& schedule, const Limits& limits);
int64_t bank_gradient_scratch_bytes(const Plan& plan, int64_t batch);

// Each throws std::runtime_error with CUDA's reason if it cannot be launched.
void launch_forward(const Plan& plan, const Tables& tables, const ForwardCall& call, const Execution& execution);
void launch_backward(const Plan& plan, const Tables& tables, const BackwardCall& call, const Execution& execution);
void launch_perceive(const Plan& plan, const Tables& tables, const PerceptionCall& call, const Execution& execution);
void launch_perceive_adjoint(const Plan& plan, const Tables& tables, const PerceptionCall& call,
                             const Execution& execution);
void launch_bank_gradient(const Plan& plan, const Tables& tables, const PerceptionCall& call,
                          const Execution& execution);

}  // namespace cube
