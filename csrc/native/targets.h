// The instruction sets the native target is compiled for, one table of functions each.
#pragma once
#include "../plan.h"

namespace cube {

struct Target {
  const char* name;
  int vector_bytes;
  void (*forward32)(const Plan&, const ForwardCall<float>&);
  void (*forward64)(const Plan&, const ForwardCall<double>&);
  void (*backward32)(const Plan&, const BackwardCall<float>&);
  void (*backward64)(const Plan&, const BackwardCall<double>&);
};

extern const Target portable_target;
#ifdef CUBE_X86_TARGETS
extern const Target avx2_target;
extern const Target avx512_target;
#endif

}  // namespace cube
