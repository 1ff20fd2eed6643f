# The module `_cuda`, by nvcc. It links the runtime statically, so that it loads where there is no driver.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)  # the last with PTX, for GPUs to come
endif()
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
# In the PyPI package the libraries lie in lib, where nvcc does not look.
cmake_path(GET CMAKE_CUDA_COMPILER PARENT_PATH toolkit)
cmake_path(GET toolkit PARENT_PATH toolkit)
if(EXISTS "${toolkit}/nvvm" AND NOT EXISTS "${toolkit}/lib64")
  string(APPEND CMAKE_CUDA_FLAGS " -L${toolkit}/lib")
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.8)
  message(FATAL_ERROR "nvcc is ${CMAKE_CUDA_COMPILER_VERSION}; compute capability 10.0 needs 12.8 or later")
endif()
include(${CMAKE_CURRENT_LIST_DIR}/sources.cmake)

set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} --expt-relaxed-constexpr -compress-mode=size")
pybind11_add_module(_cuda MODULE ${CMAKE_CURRENT_LIST_DIR}/bind.cpp plan_memory.cpp ${cuda_host_sources})
add_cuda_kernels(_cuda)
string(REPLACE ";" ", " architectures "${CMAKE_CUDA_ARCHITECTURES}")
string(STRIP "${CMAKE_CUDA_FLAGS} ${CMAKE_CUDA_FLAGS_RELEASE}" flags)
target_compile_definitions(
  _cuda PRIVATE "CUBE_BUILD=\"nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${architectures} with ${flags}\"")
target_compile_options(_cuda PRIVATE -Wall -Wextra -Werror=switch)
# Headers and the static runtime come from where nvcc says. CMake's FindCUDAToolkit would also want a libcudart.so, which
# the PyPI package has under another name.
target_include_directories(_cuda SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
set_target_properties(_cuda PROPERTIES LINKER_LANGUAGE CUDA)
