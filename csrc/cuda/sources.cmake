# What the kernels are made of. storage.cu is compiled once for each storage.
set(cuda_host_sources ${CMAKE_CURRENT_LIST_DIR}/launch.cpp ${CMAKE_CURRENT_LIST_DIR}/layout.cpp
                      ${CMAKE_CURRENT_LIST_DIR}/tables.cpp)
set(cuda_kernels ${CMAKE_CURRENT_LIST_DIR}/storage.cu)
set(cuda_storages float32 bfloat16 float16)
set(float32_type float)
set(bfloat16_type __nv_bfloat16)
set(float16_type __half)

# An object library of the kernels of each storage, linked into `target`.
function(add_cuda_kernels target)
  foreach(storage IN LISTS cuda_storages)
    add_library(${target}_${storage} OBJECT ${cuda_kernels})
    target_compile_definitions(${target}_${storage} PRIVATE CUBE_STORAGE=${storage}_kernels
                                                            CUBE_STORAGE_TYPE=${${storage}_type})
    target_link_libraries(${target} PRIVATE ${target}_${storage})
  endforeach()
endfunction()
