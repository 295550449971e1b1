# The emulated device, and the tests' own kernels for each kind of it.
target_link_libraries(${target} PRIVATE nibble_emulated ${CMAKE_DL_LIBS})
foreach(kind ${nibble_emulated_targets})
  add_library(nibble_probes_${kind} OBJECT gpu/probes.cpp)
  nibble_emulated_flags(nibble_probes_${kind} ${kind})
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:nibble_probes_${kind}>)
endforeach()

# NIBBLE_TEST_GPU_MODULE=.../libnibble_cuda.so then runs them on NVIDIA's GPUs, too.
if(TARGET nibble_cuda AND NOT NIBBLE_SANITIZE)
  find_package(CUDAToolkit REQUIRED)
  add_subdirectory(gpu/cuda)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:nibble_probes_nvidia>)
  target_link_libraries(${target} PRIVATE CUDA::cudart_static)
  target_compile_definitions(${target} PRIVATE NIBBLE_PROBES_NVIDIA)
endif()
