# One translation unit per instruction set: kernels/cpu/isa_<name>.cpp. Each is compiled with its
# own flags, always optimised (an inline function that is not inlined would become a symbol), and
# with an ABI namespace of its own (see include/nibble/base/config.hpp).

set(nibble_isa_sse42_flags -msse4.2 -mssse3)
set(nibble_isa_avx2_flags -mavx2 -mfma -mf16c)
set(nibble_isa_avx512_flags -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c -mavx2)
set(nibble_isa_avx512vnni_flags ${nibble_isa_avx512_flags} -mavx512vnni)

function(nibble_isa_sources target)
  file(GLOB isa_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/isa_*.cpp)
  string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" processor)
  foreach(source ${isa_sources})
    get_filename_component(name ${source} NAME_WE)
    string(REPLACE "isa_" "" isa ${name})
    set(flags -O3 -fno-math-errno -fno-trapping-math -DNIBBLE_ABI=isa_${isa})
    if(DEFINED nibble_isa_${isa}_flags)
      if(NOT processor MATCHES "x86_64|amd64")
        set_source_files_properties(${source} PROPERTIES HEADER_FILE_ONLY ON)
      endif()
      list(APPEND flags ${nibble_isa_${isa}_flags})
    endif()
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
  endforeach()
endfunction()
