# The module `_cuda` of the host's half alone, on the CPU; its launches are handed to Python.
include(${CMAKE_CURRENT_LIST_DIR}/sources.cmake)
set(emulation ${CMAKE_CURRENT_SOURCE_DIR}/tests/emulation)
pybind11_add_module(_cuda MODULE ${CMAKE_CURRENT_LIST_DIR}/bind.cpp plan_memory.cpp ${cuda_host_sources}
                                 tests/handed.cpp ${emulation}/emulation.cpp)
target_include_directories(_cuda BEFORE PRIVATE ${emulation})
target_compile_definitions(_cuda PRIVATE CUBE_BUILD="handed over" CUBE_SANITIZER=0)
target_compile_options(_cuda PRIVATE -Wall -Wextra -Werror=switch)
