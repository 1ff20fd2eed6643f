// Compiled once for each instruction set, with its flags, CUBE_TARGET and CUBE_VECTOR_BYTES.
#include "batch_perception.h"
#include "rollout.h"
#include "targets.h"

#define CUBE_JOIN(a, b) a##b
#define CUBE_TABLE(name) CUBE_JOIN(name, _target)
#define CUBE_QUOTED(name) #name
#define CUBE_NAME(name) CUBE_QUOTED(name)

namespace cube {
namespace {

template <class T>
constexpr Functions functions() {
  return {rollout_forward<T>, rollout_backward<T>, perception_forward<T>, perception_adjoint<T>,
          perception_bank_gradient<T>};
}

}  // namespace

extern const Target CUBE_TABLE(CUBE_TARGET) = {CUBE_NAME(CUBE_TARGET), CUBE_VECTOR_BYTES, functions<float>(),
                                               functions<double>()};

}  // namespace cube
