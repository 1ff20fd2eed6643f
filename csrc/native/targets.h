// The instruction sets the native target is compiled for, one table of functions each.
#pragma once
#include "../plan.h"

namespace cube {

// The functions that compute in one type.
struct Functions {
  void (*forward)(const Plan&, const ForwardCall&);
  void (*backward)(const Plan&, const BackwardCall&);
  void (*perceive)(const Plan&, const PerceptionCall&);
  void (*perceive_adjoint)(const Plan&, const PerceptionCall&);
  void (*bank_gradient)(const Plan&, const PerceptionCall&);
};

struct Target {
  const char* name;
  int vector_bytes;
  Functions single;
  Functions wide;  // double
};

extern const Target portable_target;
#ifdef CUBE_X86_TARGETS
extern const Target avx2_target;
extern const Target avx512_target;
#endif

}  // namespace cube
