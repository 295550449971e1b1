# The modules for GPUs: built where their compilers are found, unless they are asked for by ON (then
# a missing compiler is an error) or refused by OFF.

set(modules_by_default OFF)
if(PROJECT_IS_TOP_LEVEL)
  set(modules_by_default AUTO)
endif()
set(NIBBLE_CUDA ${modules_by_default} CACHE STRING "Build the module for NVIDIA's GPUs: AUTO, ON or OFF")
set(NIBBLE_HIP ${modules_by_default} CACHE STRING "Build the module for AMD's GPUs: AUTO, ON or OFF")
set(NIBBLE_CUDA_ARCHITECTURES "80;90" CACHE STRING
    "Compute capabilities to build for, from 75 on: 75;80;86;89;90;100;120")
set(NIBBLE_HIP_ARCHITECTURES "gfx906;gfx90a;gfx1030" CACHE STRING
    "Architectures to build for; newer ROCm also has gfx942;gfx1100;gfx1201")

if(NIBBLE_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    add_subdirectory(kernels/cuda)
  elseif(NOT NIBBLE_CUDA STREQUAL AUTO)
    message(FATAL_ERROR "NIBBLE_CUDA is ${NIBBLE_CUDA}, but there is no nvcc; install the CUDA "
                        "Toolkit, or name the compiler in CMAKE_CUDA_COMPILER")
  endif()
endif()

if(NIBBLE_HIP)
  find_program(NIBBLE_HIPCC hipcc PATHS /opt/rocm/bin)
  if(NIBBLE_HIPCC)
    add_subdirectory(kernels/hip)
  elseif(NOT NIBBLE_HIP STREQUAL AUTO)
    message(FATAL_ERROR "NIBBLE_HIP is ${NIBBLE_HIP}, but there is no hipcc; install ROCm, or "
                        "Debian's packages hipcc and libamdhip64-dev")
  endif()
endif()
