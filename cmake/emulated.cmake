# The emulated device: the kernels for GPUs as plain C++, once for each kind of device that it takes
# after, and the machine that runs them. For tests.

set(nibble_emulated_targets cuda rdna cdna)
if(NIBBLE_SANITIZE)
  set(nibble_emulated_targets cuda)  # the others are made of the same templates, and take minutes
endif()

# How a source in the dialect of kernels/gpu is compiled for one of them. Always optimised: a block's
# threads are run one after another.
function(nibble_emulated_flags target kind)
  string(TOUPPER ${kind} upper)
  target_compile_definitions(${target} PRIVATE NIBBLE_EMULATED NIBBLE_EMULATED_${upper}
                                               NIBBLE_ABI=emulated_${kind})
  if(NIBBLE_SANITIZE)
    target_compile_options(${target} PRIVATE -O1)
  else()
    target_compile_options(${target} PRIVATE -O2)
  endif()
  nibble_emulated_common(${target})
endfunction()

function(nibble_emulated_common target)
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/include
                                               ${PROJECT_SOURCE_DIR}/kernels)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON
                        CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  nibble_developer_flags(${target})
endfunction()

file(GLOB nibble_gpu_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/gpu/*.cpp)
set(nibble_emulated_objects "")
foreach(kind ${nibble_emulated_targets})
  add_library(nibble_emulated_${kind} OBJECT
    ${PROJECT_SOURCE_DIR}/kernels/emulated/target.cpp ${nibble_gpu_sources})
  nibble_emulated_flags(nibble_emulated_${kind} ${kind})
  list(APPEND nibble_emulated_objects $<TARGET_OBJECTS:nibble_emulated_${kind}>)
endforeach()

file(GLOB nibble_emulated_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/emulated/*.cpp)
list(FILTER nibble_emulated_sources EXCLUDE REGEX "/target\\.cpp$")
add_library(nibble_emulated STATIC ${nibble_emulated_sources} ${nibble_emulated_objects})
nibble_emulated_common(nibble_emulated)
target_link_libraries(nibble_emulated PUBLIC Threads::Threads)
if(NIBBLE_SANITIZE)
  target_compile_definitions(nibble_emulated PUBLIC NIBBLE_FEWER_TARGETS)
endif()
