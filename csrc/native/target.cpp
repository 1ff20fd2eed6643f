// Compiled once for each instruction set, with its flags, CUBE_TARGET and CUBE_VECTOR_BYTES.
#include "rollout.h"
#include "targets.h"

#define CUBE_JOIN(a, b) a##b
#define CUBE_TABLE(name) CUBE_JOIN(name, _target)
#define CUBE_QUOTED(name) #name
#define CUBE_NAME(name) CUBE_QUOTED(name)

namespace cube {

extern const Target CUBE_TABLE(CUBE_TARGET) = {
    CUBE_NAME(CUBE_TARGET),  CUBE_VECTOR_BYTES,       rollout_forward<float>,
    rollout_forward<double>, rollout_backward<float>, rollout_backward<double>,
};

}  // namespace cube
