# The emulated device, and the tests' own kernels for each kind of it.
target_link_libraries(${target} PRIVATE nibble_emulated ${CMAKE_DL_LIBS})
foreach(kind ${nibble_emulated_targets})
  add_library(nibble_probes_${kind} OBJECT gpu/probes.cpp)
  nibble_emulated_flags(nibble_probes_${kind} ${kind})
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:nibble_probes_${kind}>)
endforeach()

# Each case says what it has launched, and a last test whether anything is missing.
set(coverage ${CMAKE_CURRENT_BINARY_DIR}/gpu_coverage)
set(cases 0)
foreach(source ${sources})
  file(STRINGS ${source} of_source REGEX "^TEST_CASE")
  list(LENGTH of_source n)
  math(EXPR cases "${cases} + ${n}")
endforeach()
math(EXPR cases "${cases} - 1")  # but for that last one
set(more_test_properties FIXTURES_REQUIRED gpu_kernels ENVIRONMENT NIBBLE_GPU_COVERAGE=${coverage})
add_test(NAME "gpu: what was tested is forgotten"
         COMMAND ${CMAKE_COMMAND} -DFOLDER=${coverage} -P ${CMAKE_CURRENT_SOURCE_DIR}/gpu/forget.cmake)
set_tests_properties("gpu: what was tested is forgotten" PROPERTIES FIXTURES_SETUP gpu_kernels)
add_test(NAME "gpu: every kernel, format, pair of types and device was tested"
         COMMAND ${target} "[.coverage]")
set_tests_properties("gpu: every kernel, format, pair of types and device was tested" PROPERTIES
                     FIXTURES_CLEANUP gpu_kernels SKIP_REGULAR_EXPRESSION "\\[skipped\\]"
                     ENVIRONMENT "NIBBLE_GPU_COVERAGE=${coverage};NIBBLE_GPU_CASES=${cases}")

# NIBBLE_TEST_GPU_MODULE=.../libnibble_cuda.so then runs them on NVIDIA's GPUs, too.
if(TARGET nibble_cuda AND NOT NIBBLE_SANITIZE)
  find_package(CUDAToolkit REQUIRED)
  add_subdirectory(gpu/cuda)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:nibble_probes_nvidia>)
  target_link_libraries(${target} PRIVATE CUDA::cudart_static)
  target_compile_definitions(${target} PRIVATE NIBBLE_PROBES_NVIDIA)
endif()
