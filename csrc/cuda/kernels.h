// The kernels of one storage, as the host calls them.
#pragma once
#include <cuda_runtime.h>

#include "layout.h"
#include "tables.h"

namespace cube {

// What every block of a rollout is given.
struct Common {
  Plan plan;  // its tables are the host's; those of the device follow
  Tables tables;
  Widths widths;
  WeightLayout weights;
  Layout layout;
  Schedule schedule;
  bool has_rate;
  const void* packed;  // the weights, as WeightLayout says
  const void* drive;
  const uint8_t* write_mask;
  unsigned char* slices;  // of the scratch, one a block
};

struct PackLaunch {
  Plan plan;
  Widths widths;
  WeightLayout weights;
  const void* from[6];  // the tensors of RuleWeights
  void* to;
};

struct ForwardLaunch {
  Common common;
  ForwardCall call;
};

struct BackwardLaunch {
  Common common;
  WeightLayout gradients;
  BackwardCall call;
};

// Sums what the blocks of a backward pass leave in their slices.
struct CollectLaunch {
  Common common;
  WeightLayout gradients;
  int blocks;
  void* to[6];         // the tensors of RuleGradients
  void* shared_drive;  // null where each sample has its own
};

struct PerceptionLaunch {
  Plan plan;
  Tables tables;
  PerceptionCall call;
  float* slices;  // [blocks, filters, offsets, channels], of the filters' gradient
};

struct Grid {
  int64_t blocks;
  int cluster;  // blocks that form one; 1: none do
  int64_t shared_bytes;
  cudaStream_t stream;
};

struct Kernels {
  cudaError_t (*pack)(const PackLaunch&, const Grid&);
  cudaError_t (*forward)(const ForwardLaunch&, const Grid&, bool tf32);
  cudaError_t (*backward)(const BackwardLaunch&, const Grid&, bool tf32);
  cudaError_t (*collect)(const CollectLaunch&, const Grid&);
  cudaError_t (*perceive)(const PerceptionLaunch&, const Grid&);
  cudaError_t (*perceive_adjoint)(const PerceptionLaunch&, const Grid&);
  cudaError_t (*bank_gradient)(const PerceptionLaunch&, const Grid&);
  cudaError_t (*collect_bank)(const PerceptionLaunch&, const Grid&);
};

extern const Kernels float32_kernels, bfloat16_kernels, float16_kernels;

}  // namespace cube
