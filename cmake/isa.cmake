# One translation unit per instruction set: kernels/cpu/isa_<name>.cpp. Each is compiled with its
# own flags, always optimised (an inline function that is not inlined would become a symbol), and
# with an ABI namespace of its own (see include/nibble/base/config.hpp); the macro `xsimd` does the
# same for xsimd's inline functions. Products are not contracted into fused operations behind the
# sources' back: which ones are must not depend on how a loop was unrolled.

set(nibble_isas_x86 sse42 avx2 avxvnni avx512 avx512vnni)
set(nibble_isa_sse42_flags -msse4.2 -mssse3)
set(nibble_isa_avx2_flags -mavx2 -mfma -mf16c)
set(nibble_isa_avxvnni_flags ${nibble_isa_avx2_flags} -mavxvnni)
# avx512cd because xsimd's avx512bw builds on it
set(nibble_isa_avx512_flags ${nibble_isa_avx2_flags}
    -mavx512f -mavx512cd -mavx512bw -mavx512dq -mavx512vl
    # g++ 12 takes the undefined operand in its own <avx512fintrin.h> for a mistake (bug 105593)
    $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized$<SEMICOLON>-Wno-maybe-uninitialized>)
set(nibble_isa_avx512vnni_flags ${nibble_isa_avx512_flags} -mavx512vnni)

set(nibble_isas_aarch64 neon neon_dotprod)
set(nibble_isa_neon_flags -DNIBBLE_NEON)
# g++'s <arm_neon.h> wants no less than this; what it allows beyond dot products is asked for, too
set(nibble_isa_neon_dotprod_flags ${nibble_isa_neon_flags} -march=armv8.2-a+dotprod)

# The names whose units are compiled here.
string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" nibble_processor)
set(nibble_isas scalar)
if(nibble_processor MATCHES "x86_64|amd64")
  list(APPEND nibble_isas ${nibble_isas_x86})
elseif(nibble_processor MATCHES "aarch64|arm64")
  list(APPEND nibble_isas ${nibble_isas_aarch64})
endif()

# With sanitizers a unit takes minutes, and these are made of the templates of others: `avx2`,
# `avx512vnni` and `scalar` stand for them there.
if(NIBBLE_SANITIZE)
  list(REMOVE_ITEM nibble_isas sse42 avxvnni avx512)
endif()

# All flags of a unit for one instruction set, whose namespaces are named after `unit`.
function(nibble_isa_unit_flags isa unit result)
  # kernels export nothing, and so are the same for static and shared libraries: ccache has them then
  set(optimise -O3 -UNIBBLE_SHARED)
  if(NIBBLE_SANITIZE)
    set(optimise -O1)  # -O3 would take minutes a file
  endif()
  # psabi: vectors of the compiler's own are passed between inline functions only
  set(${result} ${optimise} -Wno-psabi -fno-math-errno -fno-trapping-math -ffp-contract=off
      -DNIBBLE_ABI=isa_${unit} -Dxsimd=xsimd_isa_${unit} ${nibble_isa_${isa}_flags} PARENT_SCOPE)
endfunction()

function(nibble_isa_sources target)
  if(NIBBLE_SANITIZE)
    target_compile_definitions(${target} PRIVATE NIBBLE_FEWER_ISAS)  # for select.cpp
  endif()
  file(GLOB isa_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cpu/isa_*.cpp)
  foreach(source ${isa_sources})
    get_filename_component(name ${source} NAME_WE)
    string(REPLACE "isa_" "" isa ${name})
    if(NOT isa IN_LIST nibble_isas)
      set_source_files_properties(${source} PROPERTIES HEADER_FILE_ONLY ON)
    endif()
    nibble_isa_unit_flags(${isa} ${isa} flags)
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
  endforeach()
endfunction()
