# What the assembler calls the processors, by the flags of each instruction set: "avx2=generic64+..."
function(nibble_assembler_names result)
  set(names "")
  foreach(isa baseline ${nibble_isas})
    set(flags ${nibble_isa_${isa}_flags})
    if(nibble_processor MATCHES "x86_64|amd64")
      set(architecture generic64)
      if(flags)
        string(APPEND architecture +popcnt)  # compilers take it for a part of SSE4.2
      endif()
      foreach(flag ${flags})
        if(flag MATCHES "^-m(.*)$")
          string(REGEX REPLACE "vnni$" "_vnni" extension ${CMAKE_MATCH_1})
          string(APPEND architecture +${extension})
        endif()
      endforeach()
    else()
      set(architecture armv8-a)
      if(flags MATCHES "-march=([^;]*)")
        set(architecture ${CMAKE_MATCH_1})
      endif()
    endif()
    list(APPEND names ${isa}=${architecture})
  endforeach()
  list(JOIN names "|" names)
  set(${result} ${names} PARENT_SCOPE)
endfunction()

# What the object files may hold; see object_files.cmake. Not with flags that make every object need
# a newer CPU.
find_program(NIBBLE_SED sed)
find_program(NIBBLE_SORT sort)
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-prog-name=as OUTPUT_VARIABLE nibble_as
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_program(NIBBLE_AS ${nibble_as})
if(CMAKE_NM AND CMAKE_OBJDUMP AND NIBBLE_AS AND NIBBLE_SED AND NIBBLE_SORT
   AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT CMAKE_CXX_FLAGS MATCHES "-march|-mavx")
  nibble_assembler_names(architectures)
  set(scratch ${CMAKE_CURRENT_BINARY_DIR}/instructions)
  file(MAKE_DIRECTORY ${scratch})
  foreach(check symbols instructions)
    add_test(NAME "kernels: ${check} of object files"
             COMMAND ${CMAKE_COMMAND} -D CHECK=${check} -D NM=${CMAKE_NM}
                     -D OBJDUMP=${CMAKE_OBJDUMP} -D AS=${NIBBLE_AS} -D SCRATCH=${scratch}
                     -D "ARCHITECTURES=${architectures}"
                     -D "OBJECTS=$<JOIN:$<TARGET_OBJECTS:nibble>,|>"
                     -P ${CMAKE_CURRENT_SOURCE_DIR}/kernels/object_files.cmake)
  endforeach()
endif()

# The same program on emulated processors, older ones among them: each must find the instruction
# sets that it has, and compute with them what the others do. Sanitizers cannot be emulated.
# With ONLY_FOUND it is not compared what they compute: where every machine that runs the tests has the
# best of them itself.
function(nibble_test_on cpu isas)
  set(tests "the instruction sets are those expected")
  if(NOT "ONLY_FOUND" IN_LIST ARGN)
    string(APPEND tests ",all instruction sets agree*")
  endif()
  add_test(NAME "kernels: a ${cpu} has ${isas}"
           COMMAND ${nibble_emulator} $<TARGET_FILE:nibble_test_kernels> ${tests})
  set_tests_properties("kernels: a ${cpu} has ${isas}" PROPERTIES
                       ENVIRONMENT "QEMU_CPU=${cpu};NIBBLE_EXPECTED_ISAS=${isas}" TIMEOUT 1500)
endfunction()
find_program(NIBBLE_QEMU_X86_64 qemu-x86_64)
if(CMAKE_CROSSCOMPILING AND nibble_processor STREQUAL aarch64)
  set(nibble_emulator ${CMAKE_CROSSCOMPILING_EMULATOR})
  nibble_test_on(cortex-a53 "neon, scalar")
  nibble_test_on(max "neon_dotprod, neon, scalar" ONLY_FOUND)  # the other tests run on it
elseif(NIBBLE_QEMU_X86_64 AND nibble_processor MATCHES "x86_64|amd64" AND NOT NIBBLE_SANITIZE)
  set(nibble_emulator ${NIBBLE_QEMU_X86_64})
  nibble_test_on(Conroe "scalar")
  nibble_test_on(Nehalem "sse42, scalar")
  nibble_test_on(Haswell-noTSX "avx2, sse42, scalar" ONLY_FOUND)
endif()

# See evex/avxvnni_as_evex.cpp.
if(avxvnni IN_LIST nibble_isas)
  add_library(nibble_avxvnni_as_evex OBJECT kernels/evex/avxvnni_as_evex.cpp)
  nibble_isa_unit_flags(avxvnni avxvnni_as_evex flags)
  target_compile_options(nibble_avxvnni_as_evex PRIVATE
    ${flags} -B${CMAKE_CURRENT_SOURCE_DIR}/kernels/evex
    $<$<CXX_COMPILER_ID:Clang>:-fno-integrated-as>)
  target_compile_features(nibble_avxvnni_as_evex PRIVATE cxx_std_20)
  target_include_directories(nibble_avxvnni_as_evex PRIVATE ${PROJECT_SOURCE_DIR}/include
                                                            ${PROJECT_SOURCE_DIR}/kernels)
  target_include_directories(nibble_avxvnni_as_evex SYSTEM PRIVATE
    $<TARGET_PROPERTY:xsimd,INTERFACE_INCLUDE_DIRECTORIES>)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:nibble_avxvnni_as_evex>)
  target_compile_definitions(${target} PRIVATE NIBBLE_AVXVNNI_AS_EVEX)
endif()
