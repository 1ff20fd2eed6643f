# The same sources on the CPU: the library `emulated_cuda`, and the module `_cuda` unless tests are built.
include(${CMAKE_CURRENT_LIST_DIR}/sources.cmake)
set(emulation ${CMAKE_CURRENT_SOURCE_DIR}/tests/emulation)
set_source_files_properties(${cuda_kernels} PROPERTIES LANGUAGE CXX)

add_library(emulation_flags INTERFACE)
target_include_directories(emulation_flags BEFORE INTERFACE ${emulation})
# Memory changes its type from step to step, as it may in CUDA, and nvcc's pragmas mean nothing here. What takes time is
# switching threads, so little is optimized.
target_compile_options(emulation_flags INTERFACE -O1 -fno-strict-aliasing -fno-math-errno -Wall -Wextra -Werror=switch
                                                 -Wno-unknown-pragmas -x c++)

# It tells the sanitizers what happens, and is not watched itself.
add_library(emulation OBJECT ${emulation}/emulation.cpp)
set(sanitizer 0)
if(CUBE_SANITIZE MATCHES address)
  set(sanitizer 1)
elseif(CUBE_SANITIZE MATCHES thread)
  set(sanitizer 2)
endif()
target_compile_definitions(emulation PRIVATE CUBE_SANITIZER=${sanitizer})
if(CUBE_SANITIZE)
  target_compile_options(emulation_flags INTERFACE ${optimization})
  target_compile_options(emulation PRIVATE -fno-sanitize=all)
endif()

add_library(emulated_cuda STATIC ${cuda_host_sources})
target_include_directories(emulated_cuda BEFORE PUBLIC ${emulation})
add_cuda_kernels(emulated_cuda)
target_link_libraries(emulation PRIVATE emulation_flags)
target_link_libraries(emulated_cuda PRIVATE emulation)
foreach(storage IN LISTS cuda_storages)
  target_link_libraries(emulated_cuda_${storage} PRIVATE emulation_flags)
endforeach()

if(NOT CUBE_BUILD_TESTS)
  pybind11_add_module(_cuda MODULE ${CMAKE_CURRENT_LIST_DIR}/bind.cpp plan_memory.cpp)
  target_compile_definitions(_cuda PRIVATE CUBE_BUILD="emulated")
  target_link_libraries(_cuda PRIVATE emulated_cuda)
endif()
